"""Class score, kernel distance, precision and recall against sums by hand, for samples in any order."""

import numpy as np
import pytest

from evonorms_jax.gan.scores import class_score, kernel_distance, precision_recall


def test_sure_and_balanced_predictions_score_the_number_of_classes():
    logits = 1000 * np.eye(10).repeat(50, axis=0)
    score = class_score(logits, splits=1)
    assert score.mean == pytest.approx(10) and score.deviation == 0
    assert class_score(np.zeros((500, 10)), splits=5).mean == pytest.approx(1)


def test_the_class_score_is_the_formula(rng):
    logits = rng.normal(size=(300, 7)) * 3
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = np.exp(np.mean(np.sum(p * (np.log(p) - np.log(p.mean(0))), axis=1)))
    assert class_score(logits, splits=1).mean == pytest.approx(expected, rel=1e-12)


def test_the_class_score_does_not_depend_on_the_order(rng):
    labels = np.repeat(np.arange(10), 100)
    logits = 20.0 * np.eye(10)[labels] + rng.normal(size=(1000, 10))
    by_class, shuffled = class_score(logits), class_score(rng.permutation(logits))
    assert by_class == pytest.approx(shuffled, rel=1e-12)
    assert 9 < by_class.mean < 10
    assert class_score(logits, seed=1).mean != by_class.mean


def test_the_kernel_distance_is_the_unbiased_estimator(rng):
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(6, 3)) + 1

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    pairs = [(i, j) for i in range(6) for j in range(6)]
    within = sum(kernel(s[i], s[j]) for s in (x, y) for i, j in pairs if i != j) / 30
    expected = within - 2 * sum(kernel(x[i], y[j]) for i, j in pairs) / 36
    found = kernel_distance(real=x, fake=y, subsets=1)
    assert found.mean == pytest.approx(expected)


def test_the_kernel_distance_of_one_distribution_is_around_zero(rng):
    x, y = rng.normal(size=(400, 8)), rng.normal(size=(400, 8))
    same = kernel_distance(real=x, fake=y, subsets=20, subset_size=100)
    assert abs(same.mean) < same.deviation
    moved = kernel_distance(real=x, fake=y + 1, subsets=20, subset_size=100)
    assert moved.mean > 10 * same.deviation
    shuffled = kernel_distance(real=rng.permutation(x), fake=y + 1, subsets=20, subset_size=100)
    assert moved == pytest.approx(shuffled)


def test_precision_counts_fakes_and_recall_reals(rng):
    """The generated set is one of two real clusters."""
    left, right = rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) + 50
    real = np.concatenate([left, right])
    one_mode = precision_recall(real=real, fake=rng.normal(size=(200, 4)))
    assert one_mode.precision > 0.8 and 0.3 < one_mode.recall < 0.5
    noisy = precision_recall(real=left, fake=np.concatenate([rng.normal(size=(200, 4)), right]))
    assert 0.3 < noisy.precision < 0.5 and noisy.recall > 0.8
    assert precision_recall(real=real, fake=real) == (1, 1)


def test_precision_by_hand():
    """Balls around 0, 1, 2, 10 with k = 1 have the radii 1, 1, 1, 8."""
    real, fake = np.array([[0.0], [1], [2], [10]]), np.array([[-2.0], [3], [18.5], [11]])
    assert precision_recall(real=real, fake=fake, k=1).precision == 0.5


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="splits must be from 1"):
        class_score(np.zeros((3, 2)), splits=4)
    with pytest.raises(ValueError, match="subsets of at least 2"):
        kernel_distance(real=np.zeros((1, 2)), fake=np.zeros((9, 2)))
    with pytest.raises(ValueError, match="more than k = 3"):
        precision_recall(real=np.zeros((3, 2)), fake=np.zeros((9, 2)))
