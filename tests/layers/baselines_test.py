"""The layers to compare with: Flax's norms and an activation, and filter response normalization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from support.layer_oracle import SHAPE, assert_close, ragged_mask

import evonorms_jax as en

EXPECTED = {
    "bn_relu": (nn.BatchNorm(use_running_average=False, momentum=0.9), nn.relu),
    "bn_silu": (nn.BatchNorm(use_running_average=False, momentum=0.9), nn.silu),
    "gn_relu": (nn.GroupNorm(num_groups=4, epsilon=1e-5), nn.relu),
    "gn_silu": (nn.GroupNorm(num_groups=4, epsilon=1e-5), nn.silu),
    "in_relu": (nn.InstanceNorm(epsilon=1e-5), nn.relu),
}


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("masked", [False, True])
def test_equal_flax_norm_and_activation(name, masked, rng):
    x = rng.normal(0.3, 2, SHAPE).astype(np.float32)
    mask = ragged_mask(len(x)) | (np.arange(len(x)) == 3)[:, None, None] if masked else None
    params = {key: rng.normal(size=SHAPE[-1]).astype(np.float32) for key in ("scale", "bias")}
    norm, activation = EXPECTED[name]
    stats = {k: v for k, v in norm.init(jax.random.key(0), x).items() if k != "params"}
    flax_mask = None if mask is None else np.broadcast_to(mask[..., None], x.shape)
    expected, updates = norm.apply({"params": params, **stats}, x, mask=flax_mask, mutable=["batch_stats"])
    expected = activation(expected)

    layer = en.norm_act(name, groups=4, use_running_average=False)()
    variables = {"params": {"norm": params}, **{key: {"norm": value} for key, value in stats.items()}}
    y, ours = layer.apply(variables, x, mask=mask, mutable=["batch_stats"])
    assert_close(y, expected if mask is None else np.where(flax_mask, expected, 0), 1e-6)
    for key, value in updates.get("batch_stats", {}).items():
        assert_close(ours["batch_stats"]["norm"][key], value, 1e-6)


@pytest.mark.parametrize("name", ["bn_relu", "gn_relu", "ln_silu", "in_relu"])
def test_nothing_leaks_from_under_a_mask(name, rng):
    """NaN there, and an example that is all padding: values and gradients stay finite."""
    mask = ragged_mask(4)
    assert not mask[-1].any()
    x = np.where(mask[..., None], rng.normal(size=SHAPE), np.nan).astype(np.float32)
    layer = en.norm_act(name, use_running_average=False)()
    variables = layer.init(jax.random.key(0), np.ones_like(x))

    def loss(params, x):
        return jnp.sum(layer.apply({**variables, "params": params}, x, mask=mask, mutable=True)[0] ** 2)

    leaves = jax.tree.leaves(jax.value_and_grad(loss, (0, 1))(variables["params"], x))
    assert all(np.isfinite(leaf).all() for leaf in leaves)


def test_layer_norm_is_over_space_and_channels(rng):
    x = rng.normal(0.3, 2, SHAPE).astype(np.float32)
    wide = x.astype(np.float64)
    axes = (1, 2, 3)
    deviation = np.sqrt(wide.var(axes, keepdims=True) + 1e-5)
    y, variables = en.LayerNormAct().init_with_output(jax.random.key(0), x)
    assert_close(y, np.maximum((wide - wide.mean(axes, keepdims=True)) / deviation, 0))
    assert {leaf.shape for leaf in jax.tree.leaves(variables)} == {(SHAPE[-1],)}


@pytest.mark.parametrize("masked", [False, True])
def test_filter_response_norm_equals_its_closed_form(masked, rng):
    x = rng.normal(0.3, 2, SHAPE).astype(np.float32)
    mask = ragged_mask(len(x)) if masked else np.ones(SHAPE[:-1], bool)
    params = {key: rng.normal(size=SHAPE[-1]).astype(np.float32) for key in ("scale", "bias", "tau")}
    real = np.where(mask[..., None], x, 0).astype(np.float64)
    count = np.maximum(mask.sum((1, 2)), 1).reshape(-1, 1, 1, 1)
    norm = real / np.sqrt((real**2).sum((1, 2), keepdims=True) / count + 1e-5)
    norm = norm * params["scale"] + params["bias"]
    given = np.where(mask[..., None], x, np.nan)

    y = en.FilterResponseNorm().apply({"params": params}, given, mask=mask)
    assert_close(y, np.where(mask[..., None], np.maximum(norm, params["tau"]), 0))
    del params["tau"]
    y = en.FilterResponseNorm(nonlinearity=False).apply({"params": params}, given, mask=mask)
    assert_close(y, np.where(mask[..., None], norm, 0))


def test_filter_response_norm_starts_as_a_rectifier_and_learns_its_threshold(rng):
    x = rng.normal(size=SHAPE).astype(np.float32)
    layer = en.FilterResponseNorm()
    y, variables = layer.init_with_output(jax.random.key(0), x)
    assert set(variables["params"]) == {"scale", "bias", "tau"}
    np.testing.assert_array_equal(variables["params"]["tau"], 0)
    below = np.sum(np.asarray(y) == 0, (0, 1, 2))
    gradient = jax.grad(lambda p: jnp.sum(layer.apply({"params": p}, x)))(variables["params"])
    np.testing.assert_allclose(gradient["tau"], below)


def test_filter_response_norm_keeps_one_activation(rng):
    x = jnp.asarray(rng.normal(size=(2, 16, 16, 8)), jnp.bfloat16)
    layer = en.FilterResponseNorm(dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), x)
    _, backward = jax.vjp(layer.apply, variables, x)
    kept = [leaf for leaf in jax.tree.leaves(backward) if leaf.size > 100]
    assert [(leaf.shape, leaf.dtype) for leaf in kept] == [(x.shape, x.dtype)]
