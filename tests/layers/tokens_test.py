"""Layers of token models and activations without a norm: their formulas in float64, and their NNX twins."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.layer_oracle import assert_close

import evonorms_jax as en
from evonorms_jax import nnx as en_nnx
from evonorms_jax.layers import LAYERS
from evonorms_jax.search_space import TOKEN_LAYERS

SHAPES = [(3, 7, 12), (2, 4, 3, 12), (2, 4, 3, 1)]
erf = np.vectorize(math.erf, otypes=[float])
NORMS = {
    "rms": lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6),
    "lnc": lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5),
    "": lambda x: x,
}
ACTIVATIONS = {
    "relu": lambda y: np.maximum(y, 0),
    "silu": lambda y: y / (1 + np.exp(-y)),
    "gelu": lambda y: y * (1 + erf(y / math.sqrt(2))) / 2,
    "": lambda y: y,
}
NAMES = ["dyt", "derf", *("_".join(filter(None, (n, a))) for n in NORMS for a in ACTIVATIONS if n or a)]
every_name = pytest.mark.parametrize("name", NAMES)


def oracle(name, params, x):
    """The layer in NumPy float64."""
    params = {key: np.asarray(value, np.float64) for key, value in params.items()}
    x, scale, bias = np.asarray(x, np.float64), params["scale"], params.get("bias", 0)
    if name == "dyt":
        return np.tanh(params["alpha"] * x) * scale + bias
    if name == "derf":
        return erf(params["alpha"] * x + params["shift"]) * scale + bias
    norm, _, activation = (name, "", "") if name in NORMS else name.rpartition("_")
    return ACTIVATIONS[activation](NORMS[norm](x) * scale + bias)


def params_of(name, channels, rng):
    """Parameters away from their starts. Those of DyT and Derf are scalars, and RMSNorm has no bias."""
    params = {"scale": rng.uniform(0.5, 1.5, channels), "bias": rng.normal(size=channels)}
    if name.startswith("rms"):
        del params["bias"]
    params |= {"alpha": [0.7]} if name in ("dyt", "derf") else {}
    params |= {"shift": [-0.2]} if name == "derf" else {}
    return {key: np.asarray(value, np.float32) for key, value in params.items()}


def twin_of(name, params, channels):
    """The NNX layer of a name, with parameters."""
    constructor = en.norm_act(name)
    twin = getattr(en_nnx, constructor.make.__name__)(channels, rngs=nnx.Rngs(0), **constructor.fields)
    assert set(nnx.state(twin, nnx.Param)) == set(params)
    for key, value in params.items():
        assert getattr(twin, key)[...].shape == value.shape
        getattr(twin, key)[...] = jnp.asarray(value)
    return twin


def test_all_names_are_tested():
    assert set(TOKEN_LAYERS) <= set(NAMES) <= set(LAYERS)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@every_name
def test_equals_its_formula_with_a_mask_and_without(name, shape, rng):
    x = rng.normal(0.3, 2, shape).astype(np.float32)
    params = params_of(name, shape[-1], rng)
    layer, twin = en.norm_act(name)(), twin_of(name, params, shape[-1])
    started = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    assert {key: value.shape for key, value in started.items()} == {k: v.shape for k, v in params.items()}
    expected = oracle(name, params, x)
    assert_close(layer.apply({"params": params}, x), expected)
    assert_close(twin(x), expected)
    mask = rng.random(shape[:-1]) < 0.6
    poisoned = np.where(mask[..., None], x, np.nan)
    for y in (layer.apply({"params": params}, poisoned, mask=mask), twin(poisoned, mask=mask)):
        assert_close(y, np.where(mask[..., None], expected, 0))


@every_name
def test_gradients_equal_finite_differences_and_are_finite_under_a_mask(name, rng):
    x, weights = rng.normal(0.3, 2, (2, *SHAPES[0]))
    params = params_of(name, 12, rng)
    mask = rng.random(SHAPES[0][:-1]) < 0.6
    layer = en.norm_act(name)()

    def loss(params, x):
        return jnp.sum(weights * layer.apply({"params": params}, x, mask=mask))

    with jax.enable_x64(True):
        given = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        gradient = jax.device_get(
            jax.grad(loss, (0, 1))(given, jnp.asarray(np.where(mask[..., None], x, np.nan)))
        )
    steps = {key: rng.normal(size=value.shape) for key, value in params.items()}, rng.normal(size=x.shape)

    def moved(size):
        there = {key: value + size * steps[0][key] for key, value in params.items()}
        y = oracle(name, there, x + size * steps[1])
        return np.sum(weights * np.where(mask[..., None], y, 0))

    slope = (moved(1e-6) - moved(-1e-6)) / 2e-6
    ours = sum(jax.tree.leaves(jax.tree.map(lambda g, s: np.sum(g * s), gradient, steps)))
    np.testing.assert_allclose(ours, slope, rtol=1e-5)
    assert not gradient[1][~mask].any()


@pytest.mark.parametrize("name", TOKEN_LAYERS)
def test_equals_its_graph(name, rng):
    """With a number for each channel in the place of a scalar. Gamma and beta come before an activation."""
    x, params = rng.normal(0.3, 2, SHAPES[1]).astype(np.float32), params_of(name, 12, rng)
    bias = params.get("bias", np.zeros(12))
    outer, inner = {"scale": params["scale"], "bias": bias}, {}
    if name in ("dyt", "derf"):
        inner = {"v1": np.full(12, 0.7), "v0": np.full(12, -0.2)}
    elif name not in NORMS:
        inner = {"v1": params["scale"], "v0": bias}
        outer = {"scale": np.ones(12), "bias": np.zeros(12)}
    variables = {"params": jax.tree.map(np.float32, outer | inner)}
    layer = en.GraphNormAct(graph=TOKEN_LAYERS[name], epsilon=1e-6 if name.startswith("rms") else 1e-5)
    assert_close(layer.apply(variables, x), oracle(name, params, x))


@pytest.mark.parametrize("name", ["dyt", "derf"])
def test_the_scalars_start_as_published_or_as_they_are_told(name):
    x = jnp.ones(SHAPES[0])
    for dtype in (jnp.float32, jnp.bfloat16):
        params = en.norm_act(name, param_dtype=dtype)().init(jax.random.key(0), x)["params"]
        assert params["alpha"].dtype == dtype and params["alpha"].tolist() == [0.5]
        assert name == "dyt" or params["shift"].tolist() == [0.0]
    quarter = en.norm_act(name, alpha_init=nnx.initializers.constant(0.25))()
    assert quarter.init(jax.random.key(0), x)["params"]["alpha"].tolist() == [0.25]


@every_name
def test_bfloat16_at_large_means(name, rng):
    """Computed in float32 from the rounded input. The mean is 40 deviations away."""
    x = jnp.asarray(rng.normal(320, 8, (3, 5, 64)), jnp.bfloat16)
    params = params_of(name, 64, rng)
    expected = oracle(name, params, x)
    assert_close(en.norm_act(name, dtype=jnp.float32)().apply({"params": params}, x), expected)
    half = en.norm_act(name, dtype=jnp.bfloat16)().apply({"params": params}, x)
    assert half.dtype == jnp.bfloat16
    assert_close(half, expected, 2**-8)


def test_float32_at_a_mean_of_ten_thousand_deviations(rng):
    """The mean itself has steps of 1e-3 there."""
    x = rng.normal(1e4, 1, (3, 5, 768)).astype(np.float32)
    y, _ = en.ChannelNormAct().init_with_output(jax.random.key(0), x)
    assert_close(y, NORMS["lnc"](x.astype(np.float64)), 2e-4)


@every_name
def test_it_sees_one_position_alone(name, rng):
    """So a causal model may use it, unlike a layer with moments over space."""
    x, params = rng.normal(size=SHAPES[0]).astype(np.float32), params_of(name, 12, rng)
    changed = np.concatenate([x[:, :3], 100 + x[:, 3:]], axis=1)
    before, after = (en.norm_act(name)().apply({"params": params}, each) for each in (x, changed))
    np.testing.assert_array_equal(before[:, :3], after[:, :3])


@every_name
def test_one_activation_is_kept_for_the_backward_pass(name, rng):
    x = jnp.asarray(rng.normal(size=(2, 64, 16)), jnp.bfloat16)
    layer = en.norm_act(name, dtype=jnp.bfloat16)()
    variables = layer.init(jax.random.key(0), x)
    backward = jax.eval_shape(lambda variables, x: jax.vjp(layer.apply, variables, x)[1], variables, x)
    kept = [leaf for leaf in jax.tree.leaves(backward) if leaf.size >= x.size]
    assert [(leaf.shape, leaf.dtype) for leaf in kept] == [(x.shape, x.dtype)]


def test_modulation_comes_before_the_activation_and_after_dyt(rng):
    x = rng.normal(size=SHAPES[0]).astype(np.float32)
    scale, bias = rng.normal(size=(2, 3, 12)).astype(np.float32)
    for name, own in (("rms_relu", {}), ("dyt", {"alpha": np.float32([0.7])})):
        y = en.norm_act(name)().apply({"params": own}, x, modulation=(scale, bias))
        expected = [oracle(name, {**own, "scale": scale[i], "bias": bias[i]}, x[i : i + 1]) for i in range(3)]
        assert_close(y, np.concatenate(expected))


@pytest.mark.parametrize("name", ["dyt", "derf", "gelu", "lnc_gelu"])
def test_without_the_nonlinearity(name, rng):
    """As of an EvoNorm, scale and bias are left of DyT and Derf. A norm stays."""
    x = rng.normal(0.3, 2, SHAPES[0]).astype(np.float32)
    constructor = en.norm_act(name)
    y, variables = constructor.affine().init_with_output(jax.random.key(0), x)
    assert set(variables["params"]) == {"scale", "bias"}
    fields = {**constructor.fields, "nonlinearity": False}
    twin = getattr(en_nnx, constructor.make.__name__)(12, rngs=nnx.Rngs(0), **fields)
    for each in (y, twin(x)):
        assert_close(each, NORMS["lnc" if name == "lnc_gelu" else ""](x.astype(np.float64)))


def test_weight_decay_spares_the_scalars():
    params = en.norm_act("derf")().init(jax.random.key(0), jnp.ones(SHAPES[0]))["params"]
    assert set(params) == {"scale", "bias", "alpha", "shift"}
    assert not any(jax.tree.leaves(en.norm_parameters({"norm": params})))
