"""Pixel normalization: its formula in float64, and the NNX twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.layer_oracle import SHAPE, assert_close, ragged_mask

import evonorms_jax as en
from evonorms_jax import nnx as en_nnx


def expected(x, scale, bias, epsilon):
    x = x.astype(np.float64)
    return np.maximum(x / np.sqrt(np.mean(x**2, -1, keepdims=True) + epsilon) * scale + bias, 0)


@pytest.mark.parametrize("epsilon", [1e-8, 1e-2])
def test_equals_its_formula_with_the_moments_of_a_position(epsilon, rng):
    x = (0.01 * rng.normal(0.3, 2, SHAPE)).astype(np.float32)
    params = {key: rng.normal(size=SHAPE[-1]).astype(np.float32) for key in ("scale", "bias")}
    fields = {} if epsilon == 1e-8 else {"epsilon": epsilon}
    layer, twin = en.PixelNormAct(**fields), en_nnx.PixelNormAct(SHAPE[-1], rngs=nnx.Rngs(0), **fields)
    y = layer.apply({"params": params}, x)
    assert_close(y, expected(x, **params, epsilon=epsilon))
    for key, value in params.items():
        getattr(twin, key)[...] = jnp.asarray(value)
    assert_close(twin(x), y, 1e-6)
    mask = ragged_mask(len(x))
    for masked in (layer.apply({"params": params}, x, mask=mask), twin(x, mask=mask)):
        assert_close(masked, np.where(mask[..., None], y, 0), 1e-6)


def test_its_parameters_fields_and_dtypes(rng):
    x = jnp.asarray(rng.normal(size=SHAPE), jnp.bfloat16)
    layer = en.PixelNormAct(dtype=jnp.bfloat16, activation=jnp.tanh, nonlinearity=False, use_bias=False)
    y, variables = layer.init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16 and set(variables["params"]) == {"scale"} and (y < 0).any()
    twin = en_nnx.PixelNormAct(12, dtype=jnp.bfloat16, nonlinearity=False, use_bias=False, rngs=nnx.Rngs(0))
    assert set(nnx.state(twin)) == {"scale"}
    np.testing.assert_array_equal(twin(x), y)


def test_a_masked_position_and_a_position_of_zeros_have_finite_gradients():
    x = np.zeros(SHAPE, np.float32)
    x[0, 0, 0] = np.nan
    mask = np.ones(SHAPE[:-1], bool)
    mask[0, 0, 0] = False
    gradient = jax.grad(
        lambda x: jnp.sum(en.PixelNormAct(use_scale=False, use_bias=False).apply({}, x, mask=mask))
    )(x)
    assert np.isfinite(gradient).all()
