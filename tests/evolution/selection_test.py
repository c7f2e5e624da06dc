"""Pareto dominance, selection and survival, against their definitions and a public library."""

from types import SimpleNamespace

import numpy as np
import pytest
from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from evonorms_jax.evolution.fronts import crowding_distances, front_numbers, pareto_front
from evonorms_jax.evolution.selection import SELECTIONS, with_cost
from evonorms_jax.evolution.survival import SURVIVALS
from evonorms_jax.search_space import Graph


def settings(fraction):
    return SimpleNamespace(tournament_fraction=fraction)


def dominated_by_definition(scores, i):
    return any((scores[j] >= scores[i]).all() and (scores[j] > scores[i]).any() for j in range(len(scores)))


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_front_is_that_of_the_definition_and_of_a_public_library(objectives, rng):
    for _ in range(50):
        scores = rng.integers(0, 6, (12, objectives)) / 5  # coarse, so that there are equals
        front = pareto_front(scores)
        assert front == [i for i in range(12) if not dominated_by_definition(scores, i)]
        assert front == sorted(NonDominatedSorting().do(-scores, only_non_dominated_front=True))


def test_a_score_that_is_not_finite_is_never_on_the_front():
    scores = np.array([[0.5, 0.5], [np.nan, 0.9], [0.9, np.inf], [0.2, 0.1]])
    assert pareto_front(scores) == [0]
    assert pareto_front(scores[1:3]) == []


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_sorting_into_fronts_is_that_of_a_public_library(objectives, rng):
    for _ in range(50):
        scores = rng.integers(0, 6, (20, objectives)) / 5
        numbers = front_numbers(scores)
        for number, front in enumerate(NonDominatedSorting().do(-scores)):
            assert np.flatnonzero(numbers == number).tolist() == sorted(front)


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_crowding_is_that_of_a_public_library(objectives, rng):
    """The library takes one front at a time, and a mean over the objectives instead of a sum."""
    for _ in range(20):
        scores = rng.random((20, objectives))
        numbers = front_numbers(scores)
        distances = crowding_distances(scores, numbers)
        for number in np.unique(numbers):
            theirs = calc_crowding_distance(-scores[numbers == number])
            np.testing.assert_allclose(distances[numbers == number], theirs * objectives, rtol=1e-12)


def test_equal_scores_have_no_crowding_distance():
    scores = np.full((4, 2), 0.5)
    assert crowding_distances(scores, front_numbers(scores)).tolist() == [0, 0, 0, 0]


# -- Selection


def winners(rule, rng, scores, fraction, draws):
    return [SELECTIONS[rule](rng, scores, settings(fraction)) for _ in range(draws)]


def test_the_tournament_is_a_share_of_the_population_and_its_winner_of_the_front(rng):
    scores = rng.random((20, 3))
    assert set(winners("pareto", rng, scores, 1.0, 300)) == set(pareto_front(scores))
    assert set(winners("average", rng, scores, 1.0, 5)) == {int(scores.mean(1).argmax())}
    # One member a tournament: every individual wins about equally often.
    counts = np.bincount(winners("pareto", rng, scores, 0.05, 4000))
    assert counts.min() > 140 and counts.max() < 260


def test_the_size_of_a_tournament_is_rounded(rng):
    """0.13 of 20 is 2.6: with three members the worst two individuals never win, the third worst does."""
    scores = np.arange(20.0)[:, None]
    assert min(winners("average", rng, scores, 0.13, 8000)) == 2
    assert min(winners("average", rng, scores, 0.12, 8000)) == 1
    assert min(winners("average", rng, scores, 0.01, 8000)) == 0, "at least one member"


def test_nsga2_prefers_the_better_front_and_then_the_lonelier_individual(rng):
    crowd = [[0.5 + 0.01 * i, 0.5 - 0.01 * i] for i in range(4)]
    scores = np.array([[0.1, 0.1], [1.0, 0.0], *crowd, [0.0, 1.0]])
    counts = np.bincount(winners("nsga2", rng, scores, 0.0, 2000), minlength=len(scores))
    assert counts[0] == 0, "dominated by all others"
    assert min(counts[1], counts[6]) > max(counts[2:6])
    assert winners("nsga2", rng, scores[:1], 0.0, 1) == [0]


def test_cost_is_one_more_objective(rng):
    """A cheap layer is a parent beside a more accurate one. A dear one that gains nothing is not."""
    texts = "tanh(x)", "x / std_wh(x)", "x / std_wh(x - mean_wh(x))", "abs(x)"
    graphs = [Graph.parse(text) for text in texts]
    scores = np.array([[0.6, 0.5], [0.8, 0.7], [0.8, 0.7], [0.5, 0.5]])
    objectives = with_cost(scores, graphs)
    np.testing.assert_array_equal(objectives[:, :2], scores)
    np.testing.assert_array_equal(objectives[:, 2], [-5, -8, -11, -5])
    assert set(winners("pareto_cost", rng, objectives, 1.0, 100)) == {0, 1}
    assert set(winners("pareto", rng, scores, 1.0, 100)) == {1, 2}
    assert with_cost(np.zeros((0, 2)), []).shape == (0, 3)


# -- Survival


def test_aging_keeps_the_most_recent_ones_whatever_their_scores(rng):
    scores = rng.random((7, 2))
    assert SURVIVALS["aging"](scores, 3).tolist() == [4, 5, 6]
    assert SURVIVALS["aging"](scores, 9).tolist() == list(range(7))


def test_nsga2_keeps_whole_fronts_and_thins_out_the_last_one(rng):
    for _ in range(20):
        scores = rng.random((30, 3))
        numbers = front_numbers(scores)
        distances = crowding_distances(scores, numbers)
        kept = SURVIVALS["nsga2"](scores, 12)
        lost = np.setdiff1d(np.arange(30), kept)
        assert len(kept) == 12 and kept.tolist() == sorted(kept)
        last = numbers[kept].max()
        assert numbers[lost].min() >= last
        assert distances[kept][numbers[kept] == last].min() >= distances[lost][numbers[lost] == last].max(
            initial=0
        )
    assert SURVIVALS["nsga2"](np.zeros((0, 0)), 5).tolist() == []


def test_nsga2_prefers_the_more_recent_of_equals():
    assert SURVIVALS["nsga2"](np.full((6, 1), 0.5), 3).tolist() == [3, 4, 5]
