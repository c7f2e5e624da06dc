"""The universal executor on known layers, and against compiled graphs; see `universal_oracle_test.py` too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.random_graphs import distinct_graphs

from evonorms_jax.layers.universal import UniversalNormAct
from evonorms_jax.search_space import (
    BASELINES,
    CATALOG,
    OP_NAMES,
    OPS,
    Graph,
    compile_graph,
    evaluate_reference,
    reference_batch_moments,
)
from evonorms_jax.search_space.encoding import CAPACITY, SLOTS, encode
from evonorms_jax.search_space.target import building_for
from evonorms_jax.search_space.universal import apply_encoded, initial_statistics

SHAPE = (3, 4, 3, 8)
GROUPS = 4
KNOWN = CATALOG | BASELINES


@functools.partial(jax.jit, static_argnames="train")
def run(encoded, x, v0, v1, stats, train=True):
    return apply_encoded(encoded, x, v0, v1, stats, train=train, groups=GROUPS)


@jax.jit
def gradients(encoded, x, v0, v1, cotangent):
    def loss(x, v0, v1):
        y, _ = run(encoded, x, v0, v1, initial_statistics(encoded, SHAPE[-1]))
        return jnp.sum(y * cotangent)

    return jax.grad(loss, argnums=(0, 1, 2))(x, v0, v1)


@jax.jit
def second_derivative(encoded, x, v0, v1, direction):
    def loss(x):
        return jnp.sum(jnp.square(run(encoded, x, v0, v1, jnp.zeros((CAPACITY, SHAPE[-1])))[0]))

    return jax.jvp(jax.grad(loss), (x,), (direction,))[1]


def make_inputs(rng):
    x = rng.normal(0.3, 1.5, SHAPE).astype(np.float32)
    return x, *(rng.normal(size=SHAPE[-1]).astype(np.float32) for _ in range(2))


@pytest.mark.parametrize("name", KNOWN)
def test_known_layers_agree_with_the_oracle_in_training_and_inference(name, rng):
    graph, encoded = KNOWN[name], encode(KNOWN[name])
    x, v0, v1 = make_inputs(rng)
    other = make_inputs(rng)[0]
    stats = initial_statistics(encoded, SHAPE[-1])
    y, stats = run(encoded, x, v0, v1, stats)
    np.testing.assert_allclose(y, evaluate_reference(graph, x, v0, v1, GROUPS), rtol=1e-5, atol=1e-5)

    raw = reference_batch_moments(graph, x, v0, v1, GROUPS)
    remembered = {
        index: 0.9 * (OPS[graph.nodes[index - 4].op].kind != "mean") + 0.1 * moment
        for index, moment in raw.items()
    }
    y, unchanged = run(encoded, other, v0, v1, stats, train=False)
    expected = evaluate_reference(graph, other, v0, v1, GROUPS, batch_moments=remembered)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(unchanged, stats)


@pytest.mark.parametrize("graph", [*KNOWN.values(), *distinct_graphs(7, 40)], ids=str)
def test_gradients_agree_with_those_of_the_compiled_graph(graph, rng):
    x, v0, v1 = make_inputs(rng)
    cotangent = rng.normal(size=SHAPE).astype(np.float32)
    layer = compile_graph(graph, groups=GROUPS)
    params, stats = layer.init(SHAPE[-1])
    given = {name: {"v0": v0, "v1": v1}[name] for name in params}

    def loss(params, x):
        return jnp.sum(layer.apply(params, stats, x, train=True)[0] * cotangent)

    expected_params, expected_x = jax.grad(loss, argnums=(0, 1))(given, jnp.asarray(x))
    got = dict(zip(("x", "v0", "v1"), gradients(encode(graph), x, v0, v1, cotangent), strict=True))
    expected = {"x": expected_x, "v0": jnp.zeros(8), "v1": jnp.zeros(8)} | expected_params
    for name, value in expected.items():
        scale = np.abs(value).max()
        if np.isfinite(scale):
            np.testing.assert_allclose(got[name], value, atol=2e-4 * scale + 1e-6, rtol=0, err_msg=name)


def test_every_op_is_exercised():
    graphs = [*KNOWN.values(), *distinct_graphs(7, 40)]
    live = {g.canonical.nodes[i].op for g in graphs for i in range(len(g.canonical.nodes))}
    assert live == set(OP_NAMES)


@pytest.mark.parametrize("name", KNOWN)
def test_the_second_derivative_works_forward_over_reverse(name, rng):
    x, v0, v1 = make_inputs(rng)
    direction = rng.normal(size=SHAPE).astype(np.float32)
    layer = compile_graph(KNOWN[name], groups=GROUPS)
    params, stats = layer.init(8)
    given = {name: {"v0": v0, "v1": v1}[name] for name in params}

    def of_compiled(x):
        return jnp.sum(jnp.square(layer.apply(given, stats, x, train=True)[0]))

    expected = jax.jit(lambda x: jax.jvp(jax.grad(of_compiled), (x,), (direction,))[1])(x)
    got = second_derivative(encode(KNOWN[name]), x, v0, v1, direction)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


def test_one_program_serves_all_graphs_and_replicas(rng):
    x, v0, v1 = make_inputs(rng)
    traced = 0

    @jax.jit
    def replicas(encoded, xs):
        nonlocal traced
        traced += 1
        stats = initial_statistics(encoded, 8)
        return jax.vmap(lambda x: apply_encoded(encoded, x, v0, v1, stats, train=True, groups=GROUPS)[0])(xs)

    xs = np.stack([x, 2 * x])
    for graph in KNOWN.values():
        expected = [evaluate_reference(graph, each, v0, v1, GROUPS) for each in xs]
        np.testing.assert_allclose(replicas(encode(graph), xs), expected, rtol=1e-4, atol=1e-4)
    assert traced == 1


def test_the_layer_of_a_search_refuses_an_axis_to_share_statistics_over():
    layer = UniversalNormAct(candidate=encode(CATALOG["evonorm_b0"]), axis_name="batch")
    with pytest.raises(ValueError, match=r"takes no axis_name, got 'batch': GraphNormAct does"):
        layer.init(jax.random.key(0), jnp.ones((2, 3, 3, 8)), use_running_average=False)


def test_too_many_live_nodes_are_refused():
    graph = Graph.parse("tanh(" * 11 + "x" + ")" * 11)
    with pytest.raises(ValueError, match=r"holds 10 live nodes, the graph has 11"):
        encode(graph)


def on_tpu(function, *arguments):
    with building_for("tpu"):
        return function(*arguments)


@pytest.mark.parametrize("graph", [*KNOWN.values(), *distinct_graphs(11, 12)], ids=str)
def test_the_form_for_a_tpu_has_the_same_values_gradients_and_statistics(graph, rng):
    encoded, (x, v0, v1) = encode(graph), make_inputs(rng)
    cotangent = rng.normal(size=SHAPE).astype(np.float32)
    stats = initial_statistics(encoded, SHAPE[-1])
    for function, arguments in (
        (run, (x, v0, v1, stats)),
        (functools.partial(run, train=False), (x, v0, v1, stats)),
        (gradients, (x, v0, v1, cotangent)),
        (second_derivative, (x, v0, v1, cotangent)),
    ):
        direct, compact = function(encoded, *arguments), on_tpu(function, encoded, *arguments)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), compact, direct)


def test_a_slot_is_written_before_it_is_read_on_a_tpu(monkeypatch, rng):
    monkeypatch.setattr(jax.lax, "empty", lambda shape, dtype: jnp.full(shape, jnp.nan, dtype))
    x, v0, v1 = (np.concatenate([array, array]) for array in make_inputs(rng))  # shapes not traced before
    for graph in CATALOG.values():
        encoded = encode(graph)

        def loss(x, v0, v1, encoded=encoded):
            stats = initial_statistics(encoded, x.shape[-1])
            return jnp.sum(apply_encoded(encoded, x, v0[:8], v1[:8], stats, train=True)[0])

        direct, compact = jax.grad(loss, (0, 1, 2))(x, v0, v1), on_tpu(jax.grad(loss, (0, 1, 2)), x, v0, v1)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), compact, direct)


def test_what_the_other_instructions_make_of_huge_values_stays_out(rng):
    x, v0, v1 = make_inputs(rng)
    encoded = encode(CATALOG["evonorm_s0"])
    # Squares and exponentials of these values overflow, and so do those of the cotangents.
    results = on_tpu(gradients, encoded, 1e25 * x, v0, v1, x)
    expected = gradients(encoded, 1e25 * x, v0, v1, x)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.isnan(a), np.isnan(b)), results, expected)
    results = on_tpu(gradients, encode(BASELINES["bn_relu"]), 1e15 * x, v0, v1, x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(results))


def test_the_form_for_a_tpu_keeps_no_buffer(rng):
    encoded, (x, v0, v1) = encode(CATALOG["evonorm_b0"]), make_inputs(rng)
    stats = initial_statistics(encoded, SHAPE[-1])

    def kept():
        pullback = jax.eval_shape(lambda: jax.vjp(lambda x: run(encoded, x, v0, v1, stats)[0], x)[1])
        return max(leaf.size for leaf in jax.tree.leaves(pullback))

    assert kept() == SLOTS * x.size
    assert on_tpu(kept) == x.size
    direct = gradients.lower(encoded, x, v0, v1, x).as_text()
    compact = on_tpu(gradients.lower, encoded, x, v0, v1, x).as_text()
    assert compact != direct
    assert gradients.lower(encoded, x, v0, v1, x).as_text() == direct
