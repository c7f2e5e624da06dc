"""From history, seed and index to a proposal: population, selection, mutation, random injection."""

import numpy as np
import pytest

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.evolution.proposal import (
    EvolutionSettings,
    check_settings,
    fit,
    population,
    propose_round,
)
from evonorms_jax.search_space import CATALOG, OP_NAMES, TOKEN_LAYERS, Graph, mutate, random_graph

SETTINGS = EvolutionSettings(
    select=True,
    population_size=20,
    initial_population=5,
    survival="aging",
    selection="pareto",
    tournament_fraction=0.25,
    mutation="node",
    mutations=2,
    redraw=False,
    random_probability=0.5,
    round_size=4,
    num_nodes=10,
    ops=OP_NAMES,
)


def record(index, scores=None, graph=None):
    graph = graph or random_graph(np.random.default_rng(index))
    outcome = "accepted" if scores else "low_quality"
    named = {f"anchor_{k}": score for k, score in enumerate(scores or ())}
    return Record(index, Proposal(graph, "random"), Evaluation(outcome, {}, named))


def history_of(count, rejected=()):
    rng = np.random.default_rng(0)
    scores = rng.random((count, 3)).tolist()
    return History(record(i, None if i in rejected else scores[i]) for i in range(count))


# -- The paper's rule


def propose(history, settings, seed, index):
    (proposal,) = propose_round(history, settings, seed, [index])
    return proposal


def plain_tournament(history, settings, seed, index):
    """The paper's evolution as a plain loop over lists, with the same draws."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, 1]))
    new = random_graph(np.random.default_rng(np.random.SeedSequence([seed, index])))
    before = index - index % settings.round_size
    people = [r for r in history if r.index < before and r.evaluation.scores][-settings.population_size :]
    if len(people) < settings.initial_population or rng.random() < settings.random_probability:
        return Proposal(new, "random")
    size = max(1, round(settings.tournament_fraction * len(people)))
    members = [people[i] for i in rng.choice(len(people), size, replace=False)]
    vectors = [list(member.evaluation.scores.values()) for member in members]

    def beaten(mine):
        return any(theirs != mine and all(a >= b for a, b in zip(theirs, mine)) for theirs in vectors)  # noqa: B905

    front = [member for member, mine in zip(members, vectors, strict=True) if not beaten(mine)]
    parent = front[int(rng.integers(len(front)))]
    child = parent.graph
    for _ in range(settings.mutations):
        child = mutate(rng, child)
    return Proposal(child, "mutation", (parent.index,))


@pytest.mark.parametrize("fraction", [0.05, 0.13, 0.25, 1.0])
def test_the_paper_s_rule_is_a_plain_tournament_bit_for_bit(fraction):
    """0.13 of 20 individuals are 2.6: the size of a tournament is rounded, not cut off."""
    settings = SETTINGS._replace(tournament_fraction=fraction)
    history = history_of(60, rejected=set(range(0, 60, 3)))
    for seed in range(4):
        for index in range(60):
            assert propose(history, settings, seed, index) == plain_tournament(history, settings, seed, index)


def test_a_round_is_its_proposals_one_by_one():
    history = history_of(24)
    one_by_one = [propose(history, SETTINGS, 3, index) for index in range(24, 28)]
    assert propose_round(history, SETTINGS, 3, range(24, 28)) == one_by_one
    assert propose_round(history, SETTINGS, 3, [26, 27]) == one_by_one[2:]


def test_a_record_without_finite_scores_is_not_in_the_population():
    history = History([record(0, [0.5, 0.5]), record(1, [np.nan, 0.9]), record(2), record(3, [0.4, 0.6])])
    assert [r.index for r in population(history, SETTINGS)] == [0, 3]
    assert [r.index for r in population(history, SETTINGS._replace(population_size=1))] == [3]
    assert [r.index for r in population(history, SETTINGS, before=3)] == [0]


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


@pytest.mark.parametrize("redraw", [False, True])
def test_a_child_that_is_drawn_again_always_differs_from_its_parent(redraw):
    """EvoNorm-B0 has dead nodes, so that some of its mutations change nothing."""
    history = History(record(i, [0.5], CATALOG["evonorm_b0"]) for i in range(8))
    settings = SETTINGS._replace(redraw=redraw, mutations=1, random_probability=0.0)
    children = [propose(history, settings, seed, 8).graph for seed in range(60)]
    same = sum(child.canonical == CATALOG["evonorm_b0"].canonical for child in children)
    assert same == 0 if redraw else same > 5


def test_proposals_depend_on_what_was_there_before_the_round_and_on_nothing_else():
    history = history_of(24)
    round_of_24 = [propose(history, SETTINGS, 3, index) for index in range(24, 28)]
    for index in range(24, 27):
        history.append(record(index, [1.0, 1.0, 1.0]))
        assert propose(history, SETTINGS, 3, 27) == round_of_24[3]
    assert propose(history, SETTINGS, 4, 27) != round_of_24[3]


def test_cost_enters_the_selection_of_parents_only_if_it_is_asked_for():
    """All layers are equally accurate, so the cheapest are the parents, and without cost each is one."""
    texts = ["tanh(x)", "x / std_wh(x)", "abs(x)", "x / std_wh(x - mean_wh(x))", "x / rms_wh(x)"]
    history = History(record(i, [0.5, 0.5], Graph.parse(text)) for i, text in enumerate(texts))
    settings = SETTINGS._replace(tournament_fraction=1.0, round_size=1, random_probability=0.0)
    parents = {
        rule: {propose(history, settings._replace(selection=rule), seed, 5).parents[0] for seed in range(40)}
        for rule in ("pareto", "pareto_cost")
    }
    assert parents == {"pareto": {0, 1, 2, 3, 4}, "pareto_cost": {0, 2}}


def test_an_evolution_draws_the_random_graphs_of_the_random_search_with_its_seed():
    settings = SETTINGS._replace(round_size=1, random_probability=0.5)
    for index in range(40, 80):
        proposal = propose(history_of(40), settings, 3, index)
        plain = propose(History([]), settings._replace(select=False), 3, index)
        assert proposal.origin == "mutation" or proposal == plain


def test_random_search_never_selects():
    settings = SETTINGS._replace(select=False)
    assert {propose(history_of(40), settings, 0, i).origin for i in range(40, 80)} == {"random"}


def test_seed_layers_come_first():
    settings = SETTINGS._replace(seed_layers=(CATALOG["evonorm_b0"], CATALOG["evonorm_s0"]))
    assert propose(History(), settings, 0, 1) == Proposal(CATALOG["evonorm_s0"], "seed")
    assert propose(History(), settings, 0, 2).origin == "random"
    assert propose(History(), settings._replace(select=False), 0, 1).origin == "random"


# -- The search space


def test_all_draws_stay_in_the_search_space_of_the_settings():
    settings = SETTINGS._replace(ops=("add", "tanh", "std_bwh"), num_nodes=4, round_size=1)
    graphs = {
        i: Graph([("add", (0, 1)), ("tanh", (0,)), ("std_bwh", (0,)), ("add", (4, 5))]) for i in range(8)
    }
    history = History(record(i, [0.5, i / 8], graph) for i, graph in graphs.items())
    proposals = [propose(history, settings, seed, 8) for seed in range(60)]
    assert {p.origin for p in proposals} == {"random", "mutation"}
    assert {len(p.graph.nodes) for p in proposals} == {4}
    assert {node.op for p in proposals for node in p.graph.nodes} == {"add", "tanh", "std_bwh"}


def test_ops_beyond_the_paper_are_drawn_where_the_settings_name_them():
    ops = (*OP_NAMES, "erf", "std_c")
    check_settings(SETTINGS._replace(ops=ops))
    proposals = [propose(History(), SETTINGS._replace(ops=ops), seed, 0) for seed in range(60)]
    assert {node.op for p in proposals for node in p.graph.nodes} == set(ops)
    with pytest.raises(UserError, match=r"derf uses erf, absent from search_space\.ops"):
        fit(TOKEN_LAYERS["derf"], "derf", SETTINGS)
    assert fit(TOKEN_LAYERS["derf"], "derf", SETTINGS._replace(ops=ops)) == TOKEN_LAYERS["derf"]


def test_a_seed_layer_is_filled_up_or_stripped_to_the_number_of_nodes():
    layer = Graph.parse("x / std_wh(x)")
    assert fit(layer, "a layer", SETTINGS) == layer
    for number in (2, 5):
        fitted = fit(layer, "a layer", SETTINGS._replace(num_nodes=number))
        assert len(fitted.nodes) == number and fitted.canonical == layer.canonical


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_nodes": 1}, "evolution.seed_layers: a layer has 2 live nodes, search_space.num_nodes is 1"),
        ({"ops": ("div",)}, "evolution.seed_layers: a layer uses std_wh, absent from search_space.ops"),
    ],
)
def test_a_seed_layer_outside_the_search_space_is_refused(changes, message):
    with pytest.raises(UserError) as raised:
        fit(Graph.parse("x / std_wh(x)"), "a layer", SETTINGS._replace(**changes))
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": "parato"}, "unknown evolution.selection 'parato'; did you mean 'pareto'?"),
        ({"survival": "agin"}, "unknown evolution.survival 'agin'; did you mean 'aging'?"),
        ({"ops": ("add", "sigmod")}, "unknown op in search_space.ops 'sigmod'; did you mean 'sigmoid'?"),
        ({"ops": ()}, "search_space.ops must name at least one op, each once, got none"),
        ({"ops": ("exp", "exp")}, "search_space.ops must name at least one op, each once, got exp, exp"),
        (
            {"num_nodes": 11},
            "search_space.num_nodes must be from 1 to 10, the capacity of the universal program "
            "(search_space/encoding.py), got 11",
        ),
    ],
)
def test_settings_that_no_search_can_use_are_refused(changes, message):
    check_settings(SETTINGS)
    with pytest.raises(UserError) as raised:
        check_settings(SETTINGS._replace(**changes))
    assert str(raised.value) == message
