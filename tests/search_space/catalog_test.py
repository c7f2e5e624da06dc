"""The published layers: their graphs, their closed forms, their invariances."""

import jax.numpy as jnp
import numpy as np
import pytest

from evonorms_jax.search_space import CATALOG, compile_graph, evaluate_reference

B_SERIES = ("evonorm_b0", "evonorm_b1", "evonorm_b2")
S_SERIES = ("evonorm_s0", "evonorm_s1", "evonorm_s2")
GROUPS = 4

every_layer = pytest.mark.parametrize("name", CATALOG)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def closed_form(name: str, x: np.ndarray, v: np.ndarray, moving_variance=None) -> np.ndarray:
    """method.md's table, section 2, by hand: x `[B, H, W, C]` float64, epsilon 1e-5, variances biased."""
    instance_mean = x.sum((1, 2), keepdims=True) / (x.shape[1] * x.shape[2])
    sd_wh = np.sqrt(((x - instance_mean) ** 2).mean((1, 2), keepdims=True) + 1e-5)
    rms_wh = np.sqrt((x**2).mean((1, 2), keepdims=True) + 1e-5)
    batch_mean = x.sum((0, 1, 2)) / (x.shape[0] * x.shape[1] * x.shape[2])
    variance = ((x - batch_mean) ** 2).mean((0, 1, 2)) if moving_variance is None else moving_variance
    sd_bwh = np.sqrt(variance + 1e-5)
    grouped = x.reshape(*x.shape[:3], GROUPS, -1)
    group_mean = grouped.mean((1, 2, 4), keepdims=True)
    group_variance = ((grouped - group_mean) ** 2).mean((1, 2, 4), keepdims=True)
    sd_group = np.broadcast_to(np.sqrt(group_variance + 1e-5), grouped.shape).reshape(x.shape)
    group_square = (grouped**2).mean((1, 2, 4), keepdims=True)
    rms_group = np.broadcast_to(np.sqrt(group_square + 1e-5), grouped.shape).reshape(x.shape)
    return {
        "evonorm_b0": lambda: x / np.maximum(sd_bwh, v * x + sd_wh),
        "evonorm_b1": lambda: x / np.maximum(sd_bwh, (x + 1) * rms_wh),
        "evonorm_b2": lambda: x / np.maximum(sd_bwh, rms_wh - x),
        "evonorm_s0": lambda: x * sigmoid(v * x) / sd_group,
        "evonorm_s1": lambda: x * sigmoid(x) / sd_group,
        "evonorm_s2": lambda: x * sigmoid(x) / rms_group,
    }[name]()


def params_of(name: str, v: np.ndarray) -> dict:
    return {"v1": jnp.asarray(v)} if name in ("evonorm_b0", "evonorm_s0") else {}


@every_layer
def test_size(name):
    graph = CATALOG[name]
    assert len(graph.nodes) == 10
    live = [i for i in graph.live_nodes if i >= 4]
    expected = {"b0": 6, "b1": 7, "b2": 6, "s0": 5, "s1": 4, "s2": 4}
    assert len(live) == expected[name[-2:]]
    assert graph.live_nodes[-1] == 13
    assert graph.uses_input


def test_b0_has_ten_ops_four_of_them_dead():
    live = [i for i in CATALOG["evonorm_b0"].live_nodes if i >= 4]
    assert 10 - len(live) == 4


@every_layer
def test_only_the_b_series_depends_on_the_batch(name, rng):
    assert CATALOG[name].batch_dependent == (name in B_SERIES)
    x = rng.normal(0.3, 1, (4, 3, 5, 8))
    other = np.concatenate([x[:1], 5 * x[1:]])
    first = [evaluate_reference(CATALOG[name], data, groups=GROUPS)[0] for data in (x, other)]
    assert (np.abs(first[0] - first[1]).max() > 1e-3) == (name in B_SERIES)


@every_layer
@pytest.mark.parametrize("scale", [1.0, 3e-3], ids=["large", "as_small_as_epsilon"])
def test_compiled_equals_the_closed_form(name, scale, rng):
    """At deviation 3e-3 epsilon is the larger half: another epsilon, or one outside the root, shows."""
    x = (scale * rng.normal(0.3, 1, (4, 3, 5, 8))).astype(np.float32)
    v, gamma, beta = rng.normal(1, 0.5, (3, 8)).astype(np.float32)
    layer = compile_graph(CATALOG[name], groups=GROUPS)
    _, stats = layer.init(8)
    y, stats = layer.apply(params_of(name, v), stats, x, train=True, scale=gamma, bias=beta)
    x64 = x.astype(np.float64)
    expected = closed_form(name, x64, v) * gamma + beta
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    assert (set(stats) == {"var"}) == (name in B_SERIES)
    if stats:
        moving = 0.9 * 1 + 0.1 * ((x64 - x64.mean((0, 1, 2))) ** 2).mean((0, 1, 2))
        np.testing.assert_allclose(stats["var"], moving, rtol=1e-6)
        y, _ = layer.apply(params_of(name, v), stats, x, train=False, scale=gamma, bias=beta)
        expected = closed_form(name, x64, v, moving_variance=moving) * gamma + beta
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@every_layer
def test_parameters_start_as_published(name):
    params, stats = compile_graph(CATALOG[name]).init(8)
    assert set(params) == ({"v1"} if name in ("evonorm_b0", "evonorm_s0") else set())
    for leaf in [*params.values(), *stats.values()]:
        np.testing.assert_array_equal(leaf, np.ones(8))


@every_layer
@pytest.mark.parametrize("factor", [0.01, 37.0])
def test_invariance_to_the_scale_of_x(name, factor, rng):
    """B0 and B2 do not change when x is multiplied by a positive constant (epsilon 0); B1 and S do."""
    x = rng.normal(0.3, 1, (4, 3, 5, 8)).astype(np.float32)
    layer = compile_graph(CATALOG[name], groups=GROUPS, epsilon=0.0)
    params, stats = layer.init(8)
    y, _ = layer.apply(params, stats, x, train=True)
    scaled, _ = layer.apply(params, stats, np.float32(factor) * x, train=True)
    change = np.abs(np.asarray(scaled) - y).max() / np.abs(y).max()
    assert change < 1e-5 if name in ("evonorm_b0", "evonorm_b2") else change > 1e-2


@pytest.mark.parametrize("name", S_SERIES)
def test_s_tends_to_relu_over_deviation_for_large_x(name, rng):
    x = rng.normal(0.3, 1, (4, 3, 5, 8))
    x[np.abs(x) < 1e-2] = 1e-2  # at 0 itself the limit is reached late
    layer = compile_graph(CATALOG[name], groups=GROUPS)
    grouped = x.reshape(4, 15, GROUPS, 2)
    moment = (grouped**2).mean((1, 3)) if name == "evonorm_s2" else grouped.var((1, 3))
    limit = np.maximum(x, 0) / np.sqrt(np.repeat(moment, 2, axis=1))[:, None, None]
    distances = []
    for factor in (1.0, 30.0, 3000.0):
        y, _ = layer.apply(*layer.init(8), jnp.asarray(factor * x, jnp.float32), train=True)
        distances.append(np.abs(y - limit).max())
    assert distances[0] > 0.1 > 0.02 > distances[1] > 1e-5 > distances[2]


def test_the_one_of_b1_is_not_trainable():
    assert "v0" not in str(CATALOG["evonorm_b1"])
    assert "v1" not in str(CATALOG["evonorm_b1"])
    assert ("exp", (1,)) in CATALOG["evonorm_b1"].canonical.nodes
