"""The Frechet distance: closed forms, sets of low rank, accumulation, and the floor of finite samples."""

import numpy as np
import pytest

from evonorms_jax.gan.frechet import Accumulator, Moments, frechet_distance, moments_of, sample_floor


def gaussian(mean, covariance):
    return Moments(1000, np.asarray(mean, float), np.asarray(covariance, float))


def by_singular_values(x, y):
    """The distance of two sets from their centred features alone."""
    a, b = ((f - f.mean(0)) / np.sqrt(len(f) - 1) for f in (x, y))
    step = x.mean(0) - y.mean(0)
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return step @ step + np.sum(a * a) + np.sum(b * b) - 2 * root


def test_commuting_covariances_give_the_difference_of_deviations():
    first, second = gaussian([1, 2, 3], np.diag([1.0, 4, 9])), gaussian([1, 0, 3], np.diag([4.0, 4, 1]))
    assert frechet_distance(first, second) == pytest.approx(4 + 1 + 0 + 4)


def test_two_by_two_covariances_that_do_not_commute():
    """Tr of the root of a 2x2 matrix M with eigenvalues >= 0 is sqrt(Tr M + 2 sqrt(det M))."""
    c1, c2 = np.array([[2.0, 1], [1, 3]]), np.array([[5.0, -2], [-2, 1]])
    assert not np.allclose(c1 @ c2, c2 @ c1)
    product = c1 @ c2
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = np.trace(c1) + np.trace(c2) - 2 * root
    assert frechet_distance(gaussian([0, 0], c1), gaussian([0, 0], c2)) == pytest.approx(expected, abs=1e-12)


def test_fewer_samples_than_features(rng):
    x, y = rng.normal(size=(100, 256)), 0.3 + rng.normal(size=(120, 256)) * rng.uniform(0, 2, 256)
    distance = frechet_distance(moments_of(x), moments_of(y))
    assert distance == pytest.approx(by_singular_values(x, y), rel=1e-9)
    assert distance == pytest.approx(frechet_distance(moments_of(y), moments_of(x)), rel=1e-12)
    assert 0 <= frechet_distance(moments_of(x), moments_of(rng.permutation(x))) < 1e-6


@pytest.mark.parametrize("rank", [0, 1])
def test_a_collapsed_set_has_a_finite_distance(rng, rank):
    x = rng.normal(size=(500, 32))
    collapsed = np.ones((500, 32)) + rng.normal(size=(500, rank)) @ rng.normal(size=(rank, 32))
    distance = frechet_distance(moments_of(x), moments_of(collapsed))
    assert distance == pytest.approx(by_singular_values(x, collapsed), rel=1e-9)
    assert 0 <= frechet_distance(moments_of(collapsed), moments_of(collapsed)) < 1e-6


def test_parts_of_any_size_and_order_have_the_moments_of_the_whole(rng):
    x = 100 + rng.normal(size=(47, 5))
    covariance = np.cov(x, rowvar=False)
    for sizes, order in (
        ([47], slice(None)),
        ([3] * 15 + [2], slice(None, None, -1)),
        ([0, 40, 7], slice(None)),
    ):
        accumulator, start = Accumulator(), 0
        for size in sizes:
            accumulator.add(x[order][start : start + size].astype(np.float32).astype(np.float64))
            start += size
        found = accumulator.moments()
        assert found.count == 47
        np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-6)
        np.testing.assert_allclose(found.covariance, covariance, atol=1e-4)
    together, reversed_ = moments_of(x), moments_of(x[::-1])
    np.testing.assert_allclose(together.covariance, reversed_.covariance, rtol=1e-10)


def test_wrong_sets_are_refused(rng):
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        moments_of(np.ones((1, 3)))
    with pytest.raises(FloatingPointError, match="not finite"):
        moments_of(np.array([[1.0], [np.nan]]))
    with pytest.raises(ValueError, match="same features, got 3 and 4"):
        frechet_distance(moments_of(rng.normal(size=(9, 3))), moments_of(rng.normal(size=(9, 4))))


def test_the_floor_is_the_distance_of_two_sets_from_one_gaussian(rng):
    whitened = sample_floor(np.eye(64), 500, 500)
    assert whitened == pytest.approx((64 + 64 * 65 / 4) * (2 / 500))
    scale = np.linspace(0.1, 3, 16)
    for deviations, sizes in ((np.ones(64), (500, 500)), (scale, (2000, 300))):
        found = [
            frechet_distance(*(moments_of(rng.normal(size=(n, len(deviations))) * deviations) for n in sizes))
            for _ in range(6)
        ]
        assert np.mean(found) == pytest.approx(sample_floor(np.diag(deviations**2), *sizes), rel=0.12)
