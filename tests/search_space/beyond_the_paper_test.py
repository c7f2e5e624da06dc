"""The ops beyond the paper: off by default, and the same function in every form where they are on.

A search draws from the 24 ops of the paper unless `config.search_space.ops` names others. Then neither its
random draws nor its programs may depend on the ops that this package knows besides.
"""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.random_graphs import assert_close, perturbed, well_conditioned

from evonorms_jax.evolution import rejection
from evonorms_jax.search_space import (
    BASELINES,
    CATALOG,
    OP_NAMES,
    OPS,
    TOKEN_LAYERS,
    Graph,
    compile_graph,
    evaluate_reference,
    mutate,
    random_graph,
    reference_batch_moments,
)
from evonorms_jax.search_space.encoding import PAPER, encode, instruction_set
from evonorms_jax.search_space.simplify import readable
from evonorms_jax.search_space.target import building_for
from evonorms_jax.search_space.universal import apply_encoded, initial_statistics

SHAPES = [(2, 6, 8), (2, 3, 2, 8)]  # tokens `[B, T, C]`, and images
GROUPS = 4
ALL = instruction_set(OPS)
EXTRA = set(OPS) - set(OP_NAMES)


@functools.cache
def graphs(count: int) -> list[Graph]:
    """Random graphs of all ops in which x and an op beyond the paper are live."""
    rng, found = np.random.default_rng(5), {}
    while len(found) < count:
        graph = random_graph(rng, ops=tuple(OPS))
        if graph.uses_input and EXTRA & {op for op, _ in graph.canonical.nodes}:
            found.setdefault(graph.canonical, graph)
    return list(found.values())


def inputs(shape):
    rng = np.random.default_rng(1)
    draws = rng.normal(0.3, 1, shape), rng.normal(0, 0.5, 8), rng.normal(1, 0.5, 8)
    return [array.astype(np.float32) for array in draws]


# -- Off by default


def test_the_draws_of_a_seed_are_those_before_the_package_knew_these_ops():
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(200):
        graph = random_graph(rng)
        drawn += [str(graph), str(mutate(rng, graph))]
    digest = hashlib.sha256("\n".join(drawn).encode()).hexdigest()
    assert digest == "7972f6b4651552365d08fc5d1ea25b98329f9a4da24662d15dae474ae92a8b69"


def test_fingerprints_are_those_before_the_package_knew_these_ops():
    known = {name: rejection.fingerprint(graph) for name, graph in (CATALOG | BASELINES).items()}
    assert known["evonorm_b0"] == "048974a255901a6fa3f8f524cc2cf44a"
    assert known["gn_silu"] == "2adea004d6e2b09d92dc3c05d2574bef"


def program(instructions, platform):
    """The text of a program that evaluates and differentiates graphs of an instruction set."""
    shape, vector = jax.ShapeDtypeStruct((2, 3, 3, 8), jnp.float32), jax.ShapeDtypeStruct((8,), jnp.float32)

    def loss(encoded, x, v0, v1):
        stats = initial_statistics(encoded, 8)
        return jnp.sum(apply_encoded(encoded, x, v0, v1, stats, train=True, instructions=instructions)[0])

    encoded = encode(CATALOG["evonorm_b0"], instructions)
    with building_for(platform):
        return jax.jit(jax.grad(loss, (1, 2, 3))).lower(encoded, shape, vector, vector).as_text()


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_the_program_of_a_search_does_not_hold_ops_that_the_search_does_not_name(platform):
    paper, everything = (program(instructions, platform) for instructions in (PAPER, ALL))
    assert (
        program(instruction_set(OP_NAMES), platform) == program(instruction_set(["add"]), platform) == paper
    )
    assert "erf" not in paper and "erf" in everything
    assert len(paper) < len(program(instruction_set(["erf"]), platform)) < len(everything)


def test_the_instructions_are_the_paper_s_and_those_named():
    assert PAPER == instruction_set(("tanh",)) == instruction_set(OP_NAMES)
    assert len(PAPER.instructions) == 12 + 3 and PAPER.index_sets == ("bwh", "whc", "wh", "whc/g")
    assert instruction_set(["erf"]) == PAPER._replace(elementwise=(*PAPER.elementwise, "erf"))
    assert instruction_set(["std_c"]) == PAPER._replace(index_sets=(*PAPER.index_sets, "c"))
    with pytest.raises(ValueError, match=r"^search_space.ops: unknown op 'erv'; did you mean 'erf'\?$"):
        instruction_set(["erv"])


@pytest.mark.parametrize("name", ["derf", "rms", "lnc_relu"])
def test_a_graph_that_a_program_cannot_run_is_refused(name):
    with pytest.raises(ValueError, match=r"was built without (erf|\w+_c): search_space\.ops must name it$"):
        encode(TOKEN_LAYERS[name])
    encode(TOKEN_LAYERS[name], ALL)


# -- One function in every form


def expected_of(graph, arrays):
    """By the oracle: the outputs in training and, with the statistics after it, at inference."""
    canonical, moving = graph.canonical, {}
    for index, moment in reference_batch_moments(canonical, *arrays, GROUPS).items():
        moving[index] = 0.9 * float(OPS[canonical.nodes[index - 4].op].kind != "mean") + 0.1 * moment
    return {
        "train": evaluate_reference(canonical, *arrays, GROUPS),
        "inference": evaluate_reference(canonical, *arrays, GROUPS, batch_moments=moving),
    }


@functools.partial(jax.jit, static_argnames="graph")
def compiled_results(x, v0, v1, cotangent, graph):
    layer = compile_graph(graph, groups=GROUPS)
    params, stats = layer.init(8)
    given = {"v0": v0, "v1": v1}

    def loss(x, v0, v1):
        chosen = {name: {"v0": v0, "v1": v1}[name] for name in params}
        y, after = layer.apply(chosen, stats, x, train=True)
        return jnp.sum(y * cotangent), (y, after)

    gradient, (y, after) = jax.grad(loss, (0, 1, 2), has_aux=True)(x, v0, v1)
    inferred, _ = layer.apply({name: given[name] for name in params}, after, x, train=False)
    return {"train": y, "inference": inferred}, gradient


@jax.jit
def universal_results(encoded, x, v0, v1, cotangent):
    apply = functools.partial(apply_encoded, groups=GROUPS, instructions=ALL)

    def loss(x, v0, v1):
        y, after = apply(encoded, x, v0, v1, initial_statistics(encoded, 8), train=True)
        return jnp.sum(y * cotangent), (y, after)

    gradient, (y, after) = jax.grad(loss, (0, 1, 2), has_aux=True)(x, v0, v1)
    inferred, _ = apply(encoded, x, v0, v1, after, train=False)
    return {"train": y, "inference": inferred}, gradient


def compare(results, graph, arrays, shape) -> int:
    """Holds results against the oracle where float32 can be held to it; the number compared."""
    expected, *others = (expected_of(graph, each) for each in (arrays, *perturbed(arrays, seed=2)))
    held = [key for key in expected if well_conditioned(expected[key], [each[key] for each in others])]
    for key in held:
        assert results[key].shape == shape
        assert_close(results[key], expected[key], f"{key} of {graph}")
    return len(held)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_universal_program_agrees_with_the_oracle(shape):
    arrays, cotangent = inputs(shape), np.ones(shape, np.float32)
    chosen = [*TOKEN_LAYERS.values(), *graphs(120)]
    compared = sum(
        compare(universal_results(encode(graph, ALL), *arrays, cotangent)[0], graph, arrays, shape)
        for graph in chosen
    )
    assert compared > 0.9 * 2 * len(chosen)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_compiled_graphs_agree_with_the_oracle_and_their_gradients_with_both_universal_forms(shape, rng):
    arrays, cotangent = inputs(shape), rng.normal(size=shape).astype(np.float32)
    chosen = [*TOKEN_LAYERS.values(), *graphs(6)]
    for graph in chosen:
        results, gradient = compiled_results(*arrays, cotangent, graph)
        compare(results, graph, arrays, shape)
        forms = [universal_results(encode(graph, ALL), *arrays, cotangent)]
        with building_for("tpu"):
            forms.append(universal_results(encode(graph, ALL), *arrays, cotangent))
        for outputs, theirs in forms:
            compare(outputs, graph, arrays, shape)
            for mine, other in zip(gradient, theirs, strict=True):
                scale = np.abs(mine).max()
                np.testing.assert_allclose(other, mine, atol=1e-4 * scale + 1e-6, rtol=0, err_msg=str(graph))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_moments_of_a_position_see_no_other_position(shape, rng):
    """With a mask and without: the output at a position is a function of its channels alone."""
    graph = Graph.parse("erf(v1 * ((x - mean_c(x)) / std_c(x))) / rms_c(x)")
    layer = compile_graph(graph)
    params, stats = layer.init(8)
    x, other = rng.normal(size=(2, *shape)).astype(np.float32)
    mask = rng.random(shape[:-1]) < 0.5
    mixed = np.where(mask[..., None], x, other)
    outputs = [layer.apply(params, stats, each, train=True)[0] for each in (x, mixed)]
    np.testing.assert_array_equal(*(np.asarray(y)[mask] for y in outputs))
    poisoned = np.where(mask[..., None], x, np.nan)
    y, _ = layer.apply(params, stats, poisoned, train=True, mask=mask)
    np.testing.assert_allclose(y, np.where(mask[..., None], outputs[0], 0), rtol=1e-6, atol=1e-7)


def test_large_means_in_bfloat16(rng):
    x = jnp.asarray(rng.normal(300, 8, (3, 5, 64)), jnp.bfloat16)
    layer = compile_graph(TOKEN_LAYERS["lnc"])
    for platform in ("cpu", "tpu"):
        with building_for(platform):
            y, _ = layer.apply({}, {}, x, train=True, dtype=jnp.float32)
        assert_close(y, evaluate_reference(TOKEN_LAYERS["lnc"], np.asarray(x, np.float64)), platform, 1e-4)


# -- Text


@pytest.mark.parametrize(
    ("equation", "latex"),
    [
        ("erf(v1 * x + v0)", r"\mathrm{erf}(v_1 x + v_0)"),
        ("x / rms_c(x)", r"\frac{x}{\nu_{c}(x)}"),
        ("(x - mean_c(x)) / std_c(x)", r"\frac{x - \mu_{c}(x)}{s_{c}(x)}"),
    ],
)
def test_text_and_latex(equation, latex):
    graph = Graph.parse(equation)
    assert str(graph) == equation and graph.latex() == latex
    assert Graph.from_json(graph.to_json()) == graph


@pytest.mark.parametrize(
    ("equation", "simplified"),
    [
        ("x + erf(0)", "x"),
        ("std_c(-x) * x", "x * std_c(x)"),
        ("x / std_c(x + mean_c(x))", "x / std_c(x)"),
        ("mean_c(x + x) - mean_c(x)", "mean_c(x)"),
        ("-erf(-x)", "erf(x)"),
        ("x / std_c(x + v0)", "x / std_c(x + v0)"),
        ("rms_c(mean_c(x)) * x", "rms_c(mean_c(x)) * x"),
    ],
)
def test_identities(equation, simplified):
    assert Graph.parse(readable(Graph.parse(equation))).canonical == Graph.parse(simplified).canonical


def test_an_equation_of_the_paper_is_not_spelled_with_other_ops():
    for text in ("tanh(x)", "x / rms_wh(x)", "x / std_whc(x)"):
        assert readable(Graph.parse(text)) == text
