"""Losses by hand, the orthogonality gradient by differentiation, the signal of a collapse, and shifts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from evonorms_jax.gan import losses
from evonorms_jax.gan.shifts import draw_shifts, shift


def test_hinge_losses_by_hand():
    real, fake = np.array([2.0, 0.5, -1.0]), np.array([-3.0, 0.0, 1.0])
    assert losses.discriminator_loss(real, fake) == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert losses.generator_loss(fake) == pytest.approx(2 / 3)


def test_the_orthogonality_gradient_is_that_of_half_the_squared_products(rng):
    params = {
        "conv": {"kernel": rng.normal(size=(3, 3, 2, 4)).astype(np.float32), "bias": np.ones(4, np.float32)},
        "embed": {"embedding": rng.normal(size=(3, 4)).astype(np.float32)},
        "layer": {"scale": np.ones(4, np.float32)},
    }

    def penalty(params):
        matrix = params["conv"]["kernel"].reshape(-1, 4)
        return jnp.sum(jnp.square((matrix.T @ matrix) * (1 - jnp.eye(4)))) / 2

    expected = flatten_dict(jax.grad(penalty)(params))
    for path, gradient in flatten_dict(losses.orthogonality_gradient(params)).items():
        np.testing.assert_allclose(gradient, expected[path], rtol=1e-4, atol=1e-4)


def test_the_variance_within_classes_is_unbiased_and_sees_a_collapse(rng):
    means = 3 * rng.normal(size=(4, 1, 1, 1))
    labels = rng.integers(4, size=400)
    images = (means[labels] + rng.normal(size=(400, 8, 8, 1))).astype(np.float32)
    assert losses.variance_within_classes(images, labels, 4) == pytest.approx(64, rel=0.02)
    few = [losses.variance_within_classes(images[i : i + 8], labels[i : i + 8], 4) for i in range(0, 400, 8)]
    assert np.mean(few) == pytest.approx(64, rel=0.02)
    alike = means[labels].astype(np.float32).repeat(8, 1).repeat(8, 2)
    assert losses.variance_ratio(alike, labels, images, labels, 4) < 1e-6
    assert losses.variance_ratio(images, labels, images, labels, 4) == 1
    assert losses.variance_ratio(alike, labels, alike, labels, 4) == pytest.approx(1, rel=0.1)


def test_a_shift_moves_the_image_and_repeats_its_border(rng):
    images = rng.normal(size=(3, 5, 5, 2)).astype(np.float32)
    shifts = np.array([[0, 0], [1, -2], [-3, 1]], np.int32)
    found = shift(images, shifts)
    for image, (down, right), moved in zip(images, shifts, found, strict=True):
        rows, columns = (np.clip(np.arange(5) - by, 0, 4) for by in (down, right))
        np.testing.assert_array_equal(moved, image[rows][:, columns])


def test_shifts_are_uniform_and_reach_both_ends():
    drawn = np.asarray(draw_shifts(jax.random.key(0), 3000, 2))
    values, counts = np.unique(drawn, return_counts=True)
    np.testing.assert_array_equal(values, [-2, -1, 0, 1, 2])
    assert counts.min() > 1050 and np.abs(np.corrcoef(drawn.T)[0, 1]) < 0.1
