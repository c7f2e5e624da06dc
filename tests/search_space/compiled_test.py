"""The compiler's contract: parameters, statistics, what is traced, what is kept, derivatives, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.random_graphs import distinct_graphs

from evonorms_jax.search_space import CATALOG, Graph, compile_graph, evaluate_reference

SHAPE = (4, 5, 3, 8)
GROUPS = 4

every_layer = pytest.mark.parametrize("name", CATALOG)


def variables(layer, rng, channels=SHAPE[-1]):
    """Parameters and statistics away from where they start."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype), layer.init(channels)
    )


def equations(jaxpr):
    """All equations of a jaxpr, those of inner jaxprs included."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def traced(layer, train=True, channels=SHAPE[-1], shape=SHAPE):
    params, stats = layer.init(channels)
    program = jax.make_jaxpr(lambda *a: layer.apply(*a, train=train))(params, stats, jnp.ones(shape))
    return list(equations(program.jaxpr))


def test_init_has_what_is_live_and_nothing_else():
    layer = compile_graph(Graph.parse("std_bwh(v0 * x) + mean_bwh(x) * rms_bwh(x) + std_bwh(x)"))
    params, stats = layer.init(6)
    assert set(params) == {"v0"}
    assert set(stats) == {"mean", "mean_square", "var", "var_1"}
    for name, leaf in (params | stats).items():
        start = 0 if name in ("v0", "mean") else 1
        np.testing.assert_array_equal(leaf, np.full(6, start, np.float32))
    assert compile_graph(Graph.parse("x / std_wh(x)")).init(6) == ({}, {})
    assert layer.init(6, jnp.bfloat16)[0]["v0"].dtype == jnp.bfloat16
    assert layer.init(6, jnp.bfloat16)[1]["var"].dtype == jnp.float32


def test_init_leaves_the_statistics_at_their_start():
    """They are made from nothing but the number of channels: no data can have gone into them."""
    _, stats = compile_graph(CATALOG["evonorm_b0"]).init(3)
    np.testing.assert_array_equal(stats["var"], np.ones(3))


@pytest.mark.parametrize("momentum", [0.9, 0.25, 0.0, 1.0])
def test_moving_statistics_follow_flaxs_convention(momentum, rng):
    """`momentum` is what is kept of the old value; the variance is biased; each kind has its start."""
    graph = Graph.parse("x + std_bwh(x) + mean_bwh(x) + rms_bwh(x)")
    layer = compile_graph(graph, momentum=momentum)
    params, stats = layer.init(8)
    expected = {"mean": np.zeros(8), "mean_square": np.ones(8), "var": np.ones(8)}
    for _ in range(3):
        x = rng.normal(1, 2, (2, 3, 1, 8)).astype(np.float32)
        _, stats = layer.apply(params, stats, x, train=True)
        rows = x.reshape(6, 8).astype(np.float64)
        batch = {
            "mean": rows.mean(0),
            "mean_square": (rows**2).mean(0),
            "var": ((rows - rows.mean(0)) ** 2).mean(0),
        }
        expected = {k: momentum * expected[k] + (1 - momentum) * batch[k] for k in expected}
    for name in expected:
        np.testing.assert_allclose(stats[name], expected[name], rtol=2e-6, atol=2e-6)


@every_layer
def test_inference_uses_the_statistics_and_leaves_them(name, rng):
    layer = compile_graph(CATALOG[name], groups=GROUPS)
    params, stats = variables(layer, rng)
    x = rng.normal(0.3, 1, SHAPE).astype(np.float32)
    y, after = layer.apply(params, stats, x, train=False)
    assert list(after) == list(stats)
    assert all(np.array_equal(after[k], stats[k]) for k in stats)
    # One example at a time gives the same: nothing of the batch is looked at.
    alone = jnp.concatenate([layer.apply(params, stats, x[i : i + 1], train=False)[0] for i in range(4)])
    np.testing.assert_allclose(y, alone, rtol=1e-6, atol=1e-6)
    trained, _ = layer.apply(params, stats, x, train=True)
    assert (np.abs(trained - y).max() > 1e-3) == CATALOG[name].batch_dependent


def test_statistics_carry_no_gradient(rng):
    layer = compile_graph(CATALOG["evonorm_b0"])
    params, stats = layer.init(8)
    x = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
    gradient = jax.grad(lambda x: layer.apply(params, stats, x, train=True)[1]["var"].sum())(x)
    np.testing.assert_array_equal(gradient, 0)


def test_the_moments_of_b0_come_from_one_shared_pass():
    """Two reductions of the size of x (of x - s and its square), then two of instance moments."""
    reductions = [e for e in traced(compile_graph(CATALOG["evonorm_b0"])) if e.primitive.name == "reduce_sum"]
    sizes = sorted(np.prod(e.invars[0].aval.shape) for e in reductions)
    assert sizes == [4 * 8, 4 * 8, np.prod(SHAPE), np.prod(SHAPE)]


def test_equal_subexpressions_are_traced_once():
    nodes = [("exp", (0,)), ("exp", (0,)), ("std_whc", (4,)), ("std_whc", (5,)), ("mul", (6, 7))]
    names = [e.primitive.name for e in traced(compile_graph(Graph(nodes)))]
    assert names.count("exp") == 1
    assert names.count("sqrt") == 1


@pytest.mark.parametrize("train", [True, False])
def test_dead_nodes_are_not_traced(train):
    nodes = [("exp", (0,)), ("std_bwh", (4,)), ("tanh", (0,)), ("mean_wh", (6,))]
    layer = compile_graph(Graph(nodes))
    names = {e.primitive.name for e in traced(layer, train)}
    assert "tanh" in names
    assert not names & {"exp", "sqrt"}
    assert layer.init(8) == ({}, {})


@every_layer
@pytest.mark.parametrize("masked", [False, True])
def test_backward_keeps_x_and_small_moments_only(name, masked, rng):
    """Of a bfloat16 x, one bfloat16 array of its size; the rest is per instance and channel, or the mask."""
    layer = compile_graph(CATALOG[name], groups=GROUPS)
    params, stats = layer.init(16)
    mask = jnp.ones((4, 8, 8), bool) if masked else None

    def backward(params, x, scale, bias):
        def forward(*arguments):
            params, x, scale, bias = arguments
            return layer.apply(params, stats, x, train=True, mask=mask, scale=scale, bias=bias)

        return jax.vjp(forward, params, x, scale, bias)[1]

    x = jnp.asarray(rng.normal(size=(4, 8, 8, 16)), jnp.bfloat16)
    kept = jax.tree.leaves(jax.eval_shape(backward, params, x, jnp.ones(16), jnp.zeros(16)))
    large = [(leaf.shape, leaf.dtype) for leaf in kept if leaf.size > 4 * 16 and leaf.dtype != jnp.bool_]
    assert large == [((4, 8, 8, 16), jnp.bfloat16)]
    assert any(leaf.shape == (4, 1, 1, 16) for leaf in kept)  # what costs a pass over x to recompute


def test_no_graph_keeps_more_than_x():
    x = jnp.ones((4, 8, 8, 16), jnp.bfloat16)
    for graph in distinct_graphs(seed=5, count=60):
        layer = compile_graph(graph, groups=GROUPS)
        params, stats = layer.init(16)

        def backward(params, x, layer=layer, stats=stats):
            return jax.vjp(lambda *a: layer.apply(a[0], stats, a[1], train=True)[0], params, x)[1]

        kept = jax.tree.leaves(jax.eval_shape(backward, params, x))
        assert [leaf.dtype for leaf in kept if leaf.size > 4 * 16] in ([jnp.bfloat16], []), str(graph)


@every_layer
def test_the_second_call_does_not_build_again(name, rng):
    layer = compile_graph(CATALOG[name], groups=GROUPS)
    traces = []

    @jax.jit
    def step(params, stats, x):
        traces.append(x.shape)
        return layer.apply(params, stats, x, train=True)

    params, stats = layer.init(8)
    for _ in range(3):  # the statistics that come out go in again: dtype and weak type must be the same
        _, stats = step(params, stats, jnp.asarray(rng.normal(size=SHAPE), jnp.float32))
    assert len(traces) == 1


@every_layer
def test_vmapped_equals_looped(name, rng):
    """Replicas on a leading axis of parameters, statistics and data, gradients included."""
    layer = compile_graph(CATALOG[name], groups=GROUPS)
    replicas = [variables(layer, rng) for _ in range(3)]
    x = jnp.asarray(rng.normal(0.3, 1, (3, *SHAPE)), jnp.float32)

    def step(params, stats, x):
        def loss(params, x):
            y, new = layer.apply(params, stats, x, train=True)
            return jnp.sum(jnp.square(y)), (y, new)

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *replicas)
    together = jax.jit(jax.vmap(step))(*stacked, x)
    looped = [jax.jit(step)(*replica, x[i]) for i, replica in enumerate(replicas)]
    looped = jax.tree.map(lambda *leaves: np.stack(leaves), *looped)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), together, looped)


@every_layer
def test_second_derivative(name, rng):
    """Forward over reverse, as the stability protocol does it, against differences of the gradient."""
    layer = compile_graph(CATALOG[name], groups=GROUPS)
    with jax.enable_x64(True):
        params = {k: jnp.asarray(rng.uniform(0.5, 1.5, 8)) for k in layer.init(8)[0]}
        stats = layer.init(8)[1]
        x, direction = (jnp.asarray(a) for a in rng.normal(0.3, 1, (2, *SHAPE)))

        @jax.jit
        def gradient(x):
            return jax.grad(lambda x: jnp.sum(layer.apply(params, stats, x, train=True)[0] ** 3))(x)

        _, second = jax.jit(lambda x, d: jax.jvp(gradient, (x,), (d,)))(x, direction)
        step = 1e-6 * direction
        expected = np.asarray(gradient(x + step) - gradient(x - step)) / 2e-6
        np.testing.assert_allclose(second, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_affine_and_dtype(rng):
    """scale and bias outside the graph; computed in float32 and cast once, at the end."""
    layer = compile_graph(CATALOG["evonorm_s1"], groups=GROUPS)
    x = rng.normal(size=SHAPE).astype(np.float32)
    scale, bias = rng.normal(size=(2, 8)).astype(np.float32)
    expected = evaluate_reference(CATALOG["evonorm_s1"], x, groups=GROUPS) * scale + bias
    y, _ = layer.apply({}, {}, x, train=True, scale=scale, bias=bias)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    half, _ = layer.apply({}, {}, x, train=True, scale=scale, bias=bias, dtype=jnp.bfloat16)
    np.testing.assert_array_equal(half, y.astype(jnp.bfloat16))
    assert layer.apply({}, {}, x.astype(np.float16), train=True)[0].dtype == jnp.float16


B0 = CATALOG["evonorm_b0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"groups": -2}, "groups must be at least 1, got -2"),
        ({"group_size": 0}, "group_size must be at least 1, got 0"),
        ({"momentum": 1.5}, "momentum must be in [0, 1], got 1.5"),
        ({"momentum": -0.1}, "momentum must be in [0, 1], got -0.1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError) as error:
        compile_graph(B0, **options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (
            np.ones((2, 8), np.float32),
            None,
            "x must be [B, spatial..., C] with rank 3 or more, got shape (2, 8)",
        ),
        (np.ones((2, 3, 3, 8), np.int32), None, "x must be floating point, got dtype int32"),
        (np.ones((2, 3, 3, 8), bool), None, "x must be floating point, got dtype bool"),
        (
            np.ones((2, 3, 3, 8), np.float32),
            np.ones((2, 3, 4), bool),
            "the mask must broadcast to (2, 3, 3), got shape (2, 3, 4)",
        ),
        (
            np.ones((2, 3, 3, 8), np.float32),
            np.ones((2, 3, 3), np.float32),
            "the mask must be boolean (True is real), got dtype float32",
        ),
    ],
)
def test_bad_input(x, mask, message):
    layer = compile_graph(B0)
    params, stats = layer.init(8)

    def apply(x):
        return layer.apply(params, stats, x, train=True, mask=mask)

    for function in (apply, jax.jit(apply)):
        with pytest.raises(ValueError) as error:
            function(x)
        assert str(error.value) == message
