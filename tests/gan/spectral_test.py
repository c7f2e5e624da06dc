"""Spectral normalization against singular values, its gradient, its state, and which weights have it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from evonorms_jax.gan import spectral
from evonorms_jax.gan.spectral import SpectralConv, SpectralDense, SpectralEmbed, normalize, refresh
from evonorms_jax.models.convolution import convolve


def start(kernel):
    return jnp.full(kernel.shape[-1:], kernel.shape[-1] ** -0.5)


def matrix(kernel):
    return np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (5, 7), (7, 2), (1, 1, 9, 1)])
def test_fifty_updates_find_the_largest_singular_value(shape, rng):
    kernel = rng.normal(size=shape).astype(np.float32)
    u = start(kernel)
    step = jax.jit(lambda u: normalize(kernel, u, True))
    for _ in range(50):
        normalized, u = step(u)
    singular = np.linalg.svd(matrix(kernel))[1]
    np.testing.assert_allclose(normalized, kernel / singular[0], rtol=1e-2)
    np.testing.assert_allclose(spectral.largest_singular_value(kernel, u), singular[0], rtol=1e-2)
    assert np.linalg.norm(u) == pytest.approx(1)


def test_an_estimate_is_never_above_the_largest_singular_value(rng):
    kernel = rng.normal(size=(20, 12)).astype(np.float32)
    normalized, u = normalize(kernel, start(kernel), False)
    assert np.linalg.svd(matrix(normalized))[1][0] >= 1
    np.testing.assert_array_equal(u, start(kernel))


def test_the_gradient_is_that_with_u_and_v_held(rng):
    """d(W / s) with s = v W u: no path leads through u and v, and none back to u."""
    kernel, weights = rng.normal(size=(2, 4, 3)).astype(np.float32)
    u = start(kernel)
    found, of_u = jax.grad(lambda k, u: jnp.sum(weights * normalize(k, u, True)[0]), (0, 1))(kernel, u)
    v = matrix(kernel) @ np.asarray(u, np.float64)
    v /= np.linalg.norm(v)
    right = v @ matrix(kernel)
    right /= np.linalg.norm(right)
    sigma = v @ matrix(kernel) @ right
    expected = weights / sigma - np.sum(weights * kernel) / sigma**2 * np.outer(v, right)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(of_u, 0)


def test_a_kernel_of_zeros_stays_one_with_a_finite_gradient_and_its_direction():
    zeros = jnp.zeros((3, 3, 2, 4))
    (normalized, u), backward = jax.vjp(lambda kernel: normalize(kernel, start(zeros), True), zeros)
    np.testing.assert_array_equal(normalized, 0)
    np.testing.assert_array_equal(u, start(zeros))
    (gradient,) = backward((jnp.ones_like(zeros), jnp.zeros_like(u)))
    assert np.isfinite(gradient).all()


def test_half_precision_weights_are_normalized_in_float32(rng):
    kernel = rng.normal(size=(64, 8)).astype(np.float32)
    x = rng.normal(size=(2, 64)).astype(np.float32)
    module = SpectralDense(8, dtype=jnp.bfloat16)
    variables = module.init(jax.random.key(0), x)
    variables = {**variables, "params": {**variables["params"], "kernel": kernel}}
    y, updated = module.apply(variables, x, mutable=["spectral"])
    assert y.dtype == jnp.bfloat16
    expected = normalize(kernel, start(kernel), True)[1]
    np.testing.assert_allclose(updated["spectral"]["u"], expected, rtol=1e-6)


class _All(nn.Module):
    @nn.compact
    def __call__(self, x, labels):
        x = SpectralConv(4, 3, name="conv")(x)
        x = SpectralDense(5, name="dense")(jnp.sum(x, (1, 2)))
        return x * SpectralEmbed(3, 5, name="table")(labels) + spectral.Embed(3, 5, name="plain")(labels)


@pytest.fixture(scope="module")
def all_modules():
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(2, 4, 4, 2)).astype(np.float32), np.array([0, 2], np.int32)
    variables = _All().init(jax.random.key(0), x, labels)
    noise = jax.tree.map(
        lambda leaf: leaf + generator.normal(size=leaf.shape).astype(np.float32), variables["params"]
    )
    return {**variables, "params": noise}, x, labels


def test_the_modules_apply_their_normalized_weights(all_modules):
    variables, x, labels = all_modules
    settled = refresh(variables["params"], variables["spectral"], 200)
    y = _All().apply({**variables, "spectral": settled}, x, labels)
    weights = {
        name: leaves.get("kernel", leaves.get("embedding")) for name, leaves in variables["params"].items()
    }
    exact = {name: w / np.linalg.svd(matrix(w))[1][0] for name, w in weights.items() if name != "plain"}
    biases = {name: np.asarray(variables["params"][name]["bias"]) for name in ("conv", "dense")}
    maps = convolve(jnp.asarray(x), exact["conv"]) + biases["conv"].reshape(1, 1, 1, -1)
    expected = np.sum(maps, (1, 2)) @ exact["dense"] + biases["dense"].reshape(1, -1)
    expected = expected * exact["table"][labels] + weights["plain"][labels]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_u_advances_in_training_alone_and_its_owners_are_known(all_modules):
    variables, x, labels = all_modules
    assert set(variables["spectral"]) == {"conv", "dense", "table"}
    _, updated = _All().apply(variables, x, labels, mutable=["spectral"])
    once = refresh(variables["params"], variables["spectral"], 1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updated["spectral"], once)
    assert all(
        (a != b).any() for a, b in zip(*map(jax.tree.leaves, (once, variables["spectral"])), strict=True)
    )


def test_init_leaves_u_at_its_start_with_sigma_one(all_modules):
    _, x, labels = all_modules
    variables = _All().init(jax.random.key(1), x, labels)
    for name, leaves in variables["spectral"].items():
        kernel = variables["params"][name].get("kernel", variables["params"][name].get("embedding"))
        np.testing.assert_array_equal(leaves["u"], start(kernel))
        normalized, _ = normalize(kernel, leaves["u"], False)
        np.testing.assert_allclose(normalized, kernel, rtol=1e-4, atol=1e-6)


def test_the_start_of_a_plain_table_has_its_scale():
    variables = spectral.Embed(3, 5, scale=4.0).init(jax.random.key(0), np.array([0]))
    np.testing.assert_allclose(np.linalg.svd(variables["params"]["embedding"])[1], 4, rtol=1e-5)


def test_labels_may_be_mixed(rng):
    table = rng.normal(size=(3, 4)).astype(np.float32)
    mixed = spectral.look_up(table, np.array([[0, 0, 1], [0.5, 0.5, 0]], np.float32))
    np.testing.assert_allclose(mixed, [table[2], (table[0] + table[1]) / 2], rtol=1e-6)
    np.testing.assert_array_equal(spectral.look_up(jnp.asarray(table), np.array([2])), table[[2]])
