"""Compiled layers where numbers are hard: half precision, large means, few channels, tiny maps, constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evonorms_jax.search_space import CATALOG, Graph, compile_graph, evaluate_reference

every_layer = pytest.mark.parametrize("name", CATALOG)


def apply(graph, x, **options):
    layer = compile_graph(graph, **options)
    return jax.jit(lambda x: layer.apply(*layer.init(x.shape[-1]), x, train=True))(x)


def assert_equals_oracle(graph, x, tolerance=1e-5, **options):
    """x is rounded already: the oracle sees what the layer sees."""
    y, _ = apply(graph, x, **options)
    assert y.dtype == x.dtype
    expected = evaluate_reference(graph, np.asarray(x, np.float64), **options)
    bound = tolerance * np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=tolerance, atol=bound)


@every_layer
@pytest.mark.parametrize("shape", [(3, 7, 8), (2, 5, 4, 8), (2, 3, 4, 2, 8)], ids=str)
def test_sequences_images_volumes(name, shape, rng):
    assert_equals_oracle(CATALOG[name], rng.normal(0.3, 1, shape).astype(np.float32), groups=4)


@every_layer
@pytest.mark.parametrize("channels", [1, 17, 48])
def test_channels(name, channels, rng):
    """With the default of 32 groups: 1, 17 and 24 of them."""
    assert_equals_oracle(CATALOG[name], rng.normal(0.3, 1, (2, 4, 3, channels)).astype(np.float32))


@every_layer
@pytest.mark.parametrize("shape", [(1, 4, 3, 8), (4, 1, 1, 8), (1, 1, 1, 8)], ids=str)
def test_batch_size_1_and_1x1_maps(name, shape, rng):
    assert_equals_oracle(CATALOG[name], rng.normal(0.3, 1, shape).astype(np.float32), groups=4)


@every_layer
@pytest.mark.parametrize("value", [0.0, -1e4])
def test_constant_input(name, value):
    """Without a deviation epsilon alone is left below; values and gradients stay finite."""
    x = jnp.full((2, 4, 3, 8), value, jnp.float32)
    assert_equals_oracle(CATALOG[name], x, groups=4)
    gradient = jax.grad(lambda x: jnp.sum(apply(CATALOG[name], x, groups=4)[0]))(x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("epsilon", [1e-8, 0.5, 4.0])
@pytest.mark.parametrize("text", ["x / max(x, std_wh(x))", "x / rms_bwh(x)", "v1 / (x * std_whc(x))"])
def test_the_guard_of_a_division_acts_wherever_a_denominator_may_be_small(text, epsilon, rng):
    """A root is at least that of epsilon, which is below epsilon if that is above 1."""
    x = (1e-3 * rng.normal(size=(2, 4, 3, 8))).astype(np.float32)
    assert_equals_oracle(Graph.parse(text), x, epsilon=epsilon)


@every_layer
def test_mean_1e4_with_deviation_1(name, rng):
    x = (1e4 + rng.normal(size=(4, 3, 2, 8))).astype(np.float32)
    # rms_wh(x) - x of B2 is itself a difference of two numbers of size 1e4: float32 has no more.
    assert_equals_oracle(CATALOG[name], x, groups=4, tolerance=2e-3 if name == "evonorm_b2" else 1e-4)
    if CATALOG[name].batch_dependent:
        _, stats = apply(CATALOG[name], x, momentum=0.0)
        np.testing.assert_allclose(stats["var"], x.astype(np.float64).var((0, 1, 2)), rtol=1e-4)


@every_layer
@pytest.mark.parametrize("scale", [1.0, 1e3], ids=["deviation_1", "deviation_1e3"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision(name, dtype, scale, rng):
    """Only the output is rounded: a variance of 1e6 does not fit into float16, its root does."""
    x = jnp.asarray(scale * rng.normal(0.3, 1, (4, 8, 6, 8)), dtype)
    assert_equals_oracle(CATALOG[name], x, groups=4, tolerance=float(jnp.finfo(dtype).eps))
    if CATALOG[name].batch_dependent:
        _, stats = apply(CATALOG[name], x, momentum=0.0)
        assert stats["var"].dtype == jnp.float32
        np.testing.assert_allclose(stats["var"], np.asarray(x, np.float64).var((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("op", ["mean", "rms", "std"])
def test_moments_of_many_halves(op, dtype, rng):
    """Sums of 4,096 numbers of size 3 pass what either type can count."""
    x = jnp.asarray(rng.normal(3, 1, (2, 64, 64, 4)), dtype)
    graph = Graph.parse(f"{op}_wh(x) + {op}_bwh(x) + {op}_whc(x) + {op}_whc/g(x)")
    layer = compile_graph(graph, groups=2)
    y, _ = layer.apply(*layer.init(4), x, train=True, dtype=jnp.float32)
    expected = evaluate_reference(graph, np.asarray(x, np.float64), groups=2)
    np.testing.assert_allclose(y, expected, rtol=1e-5)


@every_layer
def test_gradients_in_half_precision(name, rng):
    """The gradient of a bfloat16 x is that of the float32 layer, rounded."""
    x = jnp.asarray(rng.normal(0.3, 1, (4, 8, 6, 8)), jnp.bfloat16)
    weights = jnp.asarray(rng.normal(size=x.shape), jnp.float32)

    def loss(x):
        layer = compile_graph(CATALOG[name], groups=4)
        return jnp.sum(weights * layer.apply(*layer.init(8), x, train=True, dtype=jnp.float32)[0])

    half, single = (jax.grad(loss)(x.astype(dtype)) for dtype in (jnp.bfloat16, jnp.float32))
    assert half.dtype == jnp.bfloat16
    bound = 2**-8 * np.abs(single).max()
    np.testing.assert_allclose(half.astype(np.float32), single, rtol=2**-8, atol=bound)


def test_sqrt_does_not_spoil_the_gradient_of_zeros():
    """A dead ReLU channel in front, say: the derivative of a root at 0 is infinite, and 0 * inf is NaN."""
    graph = Graph.parse("sqrt(x) / std_bwh(x) + sqrt(mean_wh(x))")
    x = jnp.zeros((2, 3, 3, 4)).at[..., 0].set(2.0)
    gradient = jax.grad(lambda x: jnp.sum(apply(graph, x)[0]))(x)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0
