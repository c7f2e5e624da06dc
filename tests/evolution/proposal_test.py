"""Tournament, Pareto front, mutation, random injection: who is chosen, how often, and from what."""

import numpy as np
import pytest
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.evolution.proposal import (
    SELECTIONS,
    EvolutionSettings,
    check_selection,
    pareto_front,
    propose,
    tournament,
)
from evonorms_jax.search_space import CATALOG, random_graph

SETTINGS = EvolutionSettings(
    select=True,
    population_size=20,
    initial_population=5,
    tournament_fraction=0.25,
    selection="pareto",
    mutations=2,
    random_probability=0.5,
    round_size=4,
)


def record(index, scores=None, graph=None):
    graph = graph or random_graph(np.random.default_rng(index))
    outcome = "accepted" if scores else "low_quality"
    named = {f"anchor_{k}": score for k, score in enumerate(scores or ())}
    return Record(index, Proposal(graph, "random"), Evaluation(outcome, {}, named))


def history_of(count):
    rng = np.random.default_rng(0)
    return History(record(i, rng.random(3).tolist()) for i in range(count))


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


def test_a_record_without_finite_scores_is_not_in_the_population():
    history = History([record(0, [0.5, 0.5]), record(1, [np.nan, 0.9]), record(2), record(3, [0.4, 0.6])])
    assert [r.index for r in history.population(10)] == [0, 3]
    assert [r.index for r in history.population(1)] == [3]
    assert [r.index for r in history.population(10, before=3)] == [0]


def test_the_tournament_is_a_share_of_the_population_and_its_winner_of_the_front(rng):
    population = list(history_of(20))
    scores = np.array([list(r.evaluation.scores.values()) for r in population])
    whole = {tournament(rng, population, 1.0, "pareto").index for _ in range(300)}
    assert whole == set(pareto_front(scores))
    best = {tournament(rng, population, 1.0, "average").index for _ in range(5)}
    assert best == {int(scores.mean(1).argmax())}
    # One member a tournament: everybody wins about equally often.
    counts = np.bincount([tournament(rng, population, 0.05, "pareto").index for _ in range(4000)])
    assert counts.min() > 140 and counts.max() < 260


def test_the_initial_phase_is_random_and_counts_accepted_ones_only():
    few = History([record(i, [0.5]) for i in range(4)] + [record(i) for i in range(4, 12)])
    assert {propose(few, SETTINGS, 0, i).origin for i in range(12, 40)} == {"random"}


def test_half_of_the_children_are_random_and_the_rest_two_mutations_from_a_parent():
    history = history_of(40)
    settings = SETTINGS._replace(round_size=1)
    proposals = [propose(history, settings, seed, 40) for seed in range(600)]
    origins = [p.origin for p in proposals]
    assert 250 < origins.count("random") < 350
    parents = set()
    for proposal in proposals:
        if proposal.origin == "mutation":
            (parent,) = proposal.parents
            parents.add(parent)
            pairs = zip(proposal.graph.nodes, history[parent].graph.nodes, strict=True)
            assert sum(a != b for a, b in pairs) <= 2
    assert min(parents) >= 20, "only the most recent 20 are in the population"


def test_proposals_depend_on_what_was_there_before_the_round_and_on_nothing_else():
    history = history_of(24)
    round_of_24 = [propose(history, SETTINGS, 3, index) for index in range(24, 28)]
    for index in range(24, 27):
        history.append(record(index, [1.0, 1.0, 1.0]))
        assert propose(history, SETTINGS, 3, 27) == round_of_24[3]
    assert propose(history, SETTINGS, 4, 27) != round_of_24[3]


def test_random_search_never_selects():
    settings = SETTINGS._replace(select=False)
    assert {propose(history_of(40), settings, 0, i).origin for i in range(40, 80)} == {"random"}


def test_seed_layers_come_first():
    settings = SETTINGS._replace(seed_layers=(CATALOG["evonorm_b0"], CATALOG["evonorm_s0"]))
    assert propose(History(), settings, 0, 1) == Proposal(CATALOG["evonorm_s0"], "seed")
    assert propose(History(), settings, 0, 2).origin == "random"
    assert propose(History(), settings._replace(select=False), 0, 1).origin == "random"


def test_an_unknown_selection_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown evolution.selection 'parato'; did you mean 'pareto'\?"):
        check_selection("parato")
    assert set(SELECTIONS) == {"pareto", "average"}
