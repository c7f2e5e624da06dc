"""A conditional layer: its scale and bias act where the layer has its own, and follow from each condition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.layer_oracle import SHAPE, assert_close, oracle

import evonorms_jax as en
from evonorms_jax.gan.conditional import ConditionalNormAct
from evonorms_jax.layers import LAYERS
from evonorms_jax.training.mesh import data_mesh, split

B, C = SHAPE[0], SHAPE[-1]
CONDITION = 5


def run(name, x, modulation, **fields):
    layer = en.norm_act(name, groups=4, use_running_average=False, **fields)()
    return layer.init_with_output(jax.random.key(0), x, modulation=modulation)


@pytest.mark.parametrize("name", LAYERS)
def test_a_modulation_equal_for_all_examples_equals_the_parameters(name, rng):
    """And it leaves no parameters `scale` and `bias` behind."""
    x = rng.normal(0.3, 2, SHAPE).astype(np.float32)
    scale, bias = rng.normal(size=(2, C)).astype(np.float32)
    layer = en.norm_act(name, groups=4, use_running_average=False, use_bias=True)()
    names = {"scale": scale, "bias": bias}
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: names.get(path[-1].key, leaf), layer.init(jax.random.key(0), x)["params"]
    )
    expected, _ = layer.apply({"params": params}, x, mutable=["batch_stats"])
    y, variables = run(name, x, tuple(np.broadcast_to(one, (B, C)) for one in (scale, bias)))
    assert_close(y, expected, 1e-6)
    left = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(variables.get("params", {}))}
    assert left <= {"v", "tau", "alpha", "shift"}


def test_each_example_has_its_own_scale_and_bias(rng):
    """Before the ReLU of a GroupNorm, and after the core of an EvoNorm."""
    x = rng.normal(0.3, 2, SHAPE).astype(np.float32)
    scale, bias = rng.normal(size=(2, B, 1, 1, C)).astype(np.float32)
    given = scale.reshape(B, C), bias.reshape(B, C)
    core = oracle("evonorm_s0", {}, x)
    assert_close(run("evonorm_s0", x, given)[0], core * scale + bias)
    grouped = x.reshape(B, -1, 4, C // 4).astype(np.float64)
    deviation = np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-5)
    norm = ((grouped - grouped.mean((1, 3), keepdims=True)) / deviation).reshape(SHAPE)
    assert_close(run("gn_relu", x, given)[0], np.maximum(norm * scale + bias, 0))


def test_a_mask_and_half_precision_remain(rng):
    x = jnp.asarray(rng.normal(size=SHAPE), jnp.bfloat16)
    mask = np.arange(SHAPE[1])[:, None] < np.full(SHAPE[2], 3)
    ones = np.ones((B, C), np.float32)
    for name in ("bn_relu", "evonorm_b0", "frn_tlu", "pn_relu"):
        layer = en.norm_act(name, use_running_average=False, dtype=jnp.bfloat16)()
        y, _ = layer.init_with_output(jax.random.key(0), x, mask=mask, modulation=(ones, ones))
        assert y.dtype == jnp.bfloat16 and not np.asarray(y[:, 3:], np.float32).any()


def conditional(name):
    return ConditionalNormAct(en.norm_act(name, groups=4), use_running_average=False)


@pytest.mark.parametrize("name", ["bn_relu", "evonorm_b0", "evonorm_s0", "pn_relu"])
def test_without_a_dependence_on_the_condition_it_is_the_unconditional_layer(name, rng):
    """The gain is centred at 1: a layer that multiplies by `Wg c` alone would give 0 here."""
    x = rng.normal(0.3, 2, SHAPE).astype(np.float32)
    condition = rng.normal(size=(B, CONDITION)).astype(np.float32)
    variables = conditional(name).init(jax.random.key(0), x, condition)
    zero = {key: jax.tree.map(jnp.zeros_like, variables["params"][key]) for key in ("scale", "bias")}
    variables = {**variables, "params": {**variables["params"], **zero}}
    y, _ = conditional(name).apply(variables, x, condition, mutable=["batch_stats"])
    plain = en.norm_act(name, groups=4, use_running_average=False)()
    assert_close(y, plain.init_with_output(jax.random.key(0), x)[0], 1e-6)


def test_scale_and_bias_are_the_normalized_matrices_times_the_condition(rng):
    x = rng.normal(0.3, 2, SHAPE).astype(np.float32)
    condition = rng.normal(size=(B, CONDITION)).astype(np.float32)
    layer = conditional("evonorm_s0")
    variables = layer.init(jax.random.key(0), x, condition)
    params = jax.tree.map(lambda leaf: 3 * leaf, variables["params"])
    assert set(params) == {"scale", "bias", "layer"} and set(params["layer"]) == {"v"}
    kernels = {key: np.asarray(params[key]["kernel"], np.float64) for key in ("scale", "bias")}
    gain, bias = (
        (condition @ (kernel / np.linalg.svd(kernel)[1][0])).reshape(B, 1, 1, C)
        for kernel in kernels.values()
    )
    y = layer.apply({**variables, "params": params}, x, condition)
    assert_close(y, oracle("evonorm_s0", {"v": np.full(C, 3.0)}, x) * (1 + gain) + bias, 1e-4)


@pytest.mark.parametrize("name", ["bn_relu", "evonorm_b0"])
def test_value_and_gradients_over_eight_devices_are_those_of_one(name, rng):
    """Statistics of the batch are those of all devices, and the gain multiplies on each."""
    x = rng.normal(0.3, 2, (8, 4, 4, C)).astype(np.float32)
    condition = rng.normal(size=(8, CONDITION)).astype(np.float32)
    layer = conditional(name)
    variables = layer.init(jax.random.key(0), x, condition)

    @jax.jit
    def step(params, x, condition):
        def loss(params, x):
            y, updated = layer.apply({**variables, "params": params}, x, condition, mutable=["batch_stats"])
            return jnp.sum(y**3), (y, updated)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    found = [
        step(variables["params"], *jax.device_put((x, condition), split(data_mesh(jax.devices()[:count]))))
        for count in (1, 8)
    ]
    jax.tree.map(lambda one, other: assert_close(other, one, 1e-4), *found)
