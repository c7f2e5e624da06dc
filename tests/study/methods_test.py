"""The search methods: the part of a search that each one reads, and the layers that they chose."""

import json

import numpy as np
import pytest
from support.studies import records

from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.evolution.proposal import EvolutionSettings, propose_round
from evonorms_jax.evolution.search import search
from evonorms_jax.evolution.session import evolution_settings
from evonorms_jax.search_space import BASELINES, CATALOG, Graph
from evonorms_jax.study.methods import (
    METHODS,
    OWN_KEYS,
    SEARCHES,
    affordable,
    apply_method,
    best_so_far,
    chosen_layers,
    chosen_searches,
    rises,
    search_config,
    spent,
)
from experiments.configs import compare_mnist5k, search_mnist5k, transfer_mnist5k

# -- The part of a search that a method reads


def test_each_method_takes_its_part_of_the_search():
    made = records(None, None, 0.4, None, 0.7, 0.5)
    runs = {name: apply_method(name, 0, made) for name in ("random", "random_rejection", "random_search")}
    assert [len(run.examined) for run in runs.values()] == [1, 3, 6]
    assert [run.finalists[0].index for run in runs.values()] == [0, 2, 4]
    assert apply_method("evolution", 0, made).finalists[0].index == 4


def test_a_search_that_accepts_no_candidate_chooses_none_but_random_takes_any():
    made = records(None, None, None)
    assert apply_method("random", 0, made).finalists[0].index == 0
    for name in ("random_rejection", "random_search", "evolution"):
        run = apply_method(name, 0, made)
        assert run.finalists == [] and len(run.examined) == 3


def test_random_with_rejection_ends_as_a_search_of_method_random_does():
    """One random search serves three methods, because proposals depend on the seed alone."""

    def examine(graphs, history):
        del history
        return [
            Evaluation("accepted", {}, {"a": 0.5}) if "bwh" in str(graph) else Evaluation("low_quality", {})
            for graph in graphs
        ]

    config = search_mnist5k.get_config()
    fields = config.evolution.to_dict() | config.search_space.to_dict() | {"seed_layers": ()}
    settings = EvolutionSettings(select=False, **fields)
    whole, alone = History(), History()
    list(search(whole, examine, settings, seed=1, budget=200, stop_at_first=False))
    list(search(alone, examine, settings, seed=1, budget=200, stop_at_first=True))
    run = apply_method("random_rejection", 1, list(whole))
    assert 1 < len(run.examined) < len(whole) == 200
    assert [record.graph for record in run.examined] == [record.graph for record in alone]
    assert run.finalists[0].graph == alone[-1].graph


def test_the_best_so_far_rises_with_accepted_candidates_only():
    made = records(None, 0.4, None, 0.3, 0.6)
    np.testing.assert_allclose(best_so_far(made), [np.nan, 0.4, 0.4, 0.4, 0.6])
    assert rises(made, by_steps=False) == [(2, pytest.approx(0.4)), (5, pytest.approx(0.6))]
    assert rises(records(None, None), by_steps=False) == []


def test_a_method_pays_for_what_its_steps_allow():
    made = [
        record._replace(evaluation=record.evaluation._replace(steps=10)) for record in records(*[0.5] * 6)
    ]
    assert spent(made).tolist() == [10, 20, 30, 40, 50, 60]
    assert [len(affordable(made, steps)) for steps in (None, 5, 10, 39, 40, 100)] == [6, 1, 1, 3, 4, 6]
    assert len(apply_method("evolution", 0, made, device_steps=35).examined) == 3
    assert rises(made, by_steps=True) == [(10, pytest.approx(0.5))]


def test_no_two_finalists_are_alike():
    equations = ["x / std_wh(x)", "tanh(x)", "x / std_wh(x + v0)", "abs(x)"]
    made = [
        Record(i, Proposal(Graph.parse(text), "random"), Evaluation("accepted", {}, {"a": 0.9 - i / 10}))
        for i, text in enumerate(equations)
    ]
    run = apply_method("random_search", 0, made, top=3)
    assert [record.index for record in run.finalists] == [0, 1, 3]


def test_a_search_of_the_comparison_has_its_settings_and_no_others():
    config = compare_mnist5k.get_config()
    made = search_config(config, "evolution", 2).to_dict()
    assert (made["seed"], made["method"]) == (2, "evolution")
    assert not set(OWN_KEYS) & set(made)
    assert set(made) == (set(config.to_dict()) - set(OWN_KEYS)) | {"seed", "method"}
    assert made["evolution"]["seed_layers"] == (), "a seed layer would be a candidate of evolution alone"


def test_seeded_searches_begin_with_two_layers_and_differ_in_their_parents():
    config = compare_mnist5k.get_config()
    made = {name: search_config(config, name, 2) for name in SEARCHES if name.startswith("warm")}
    for each in made.values():
        settings = evolution_settings(each)
        assert [str(graph.canonical) for graph in settings.seed_layers] == [
            str(BASELINES[name].canonical) for name in ("bn_relu", "gn_relu")
        ]
    history = History()
    for index, name in enumerate(("bn_relu", "gn_relu")):
        evaluation = Evaluation("accepted", {}, {"a": 0.9 - index / 2})
        history.append(Record(index, Proposal(BASELINES[name], "seed"), evaluation))
    for index in range(2, 10):  # up to the next round
        history.append(Record(index, Proposal(BASELINES["bn_relu"], "random"), Evaluation("low_quality", {})))
    parents = {}
    for name, each in made.items():
        settings = evolution_settings(each)._replace(round_size=2)
        proposals = [propose_round(history, settings, 2, [index])[0] for index in range(10, 60)]
        parents[name] = {parent for proposal in proposals for parent in proposal.parents}
        origins = {proposal.origin for proposal in proposals}
        assert origins == ({"random"} if name == "warm_random" else {"mutation"})
    assert parents["warm_uniform"] == {0, 1}, "any parent, good or bad"


def test_searches_run_seed_by_seed_and_only_those_that_are_read():
    config = compare_mnist5k.get_config()
    config.seeds, config.methods = (1, 2), ("random", "random_search")
    assert chosen_searches(config) == [(1, "random_search"), (2, "random_search")]
    config.methods = ("evolution", "random")
    assert chosen_searches(config)[:2] == [(1, "random_search"), (1, "evolution")]


# -- The layers that the methods chose


def results_text(graphs, title="Evolution"):
    runs = [{"chosen": graph and {"graph": graph.to_json()}} for graph in graphs]
    return json.dumps({"methods": [{"title": title, "runs": runs}]})


def test_a_method_has_a_layer_for_each_seed(tmp_path):
    graphs = list(CATALOG.values())[:3]
    (tmp_path / "compare_methods.json").write_text(results_text(graphs))
    for source in (tmp_path, tmp_path / "compare_methods.json"):
        assert chosen_layers(str(source), 2) == {"Evolution": graphs[:2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged, or was not written by compare_methods"),
        ('{"layers": []}', "damaged, or was not written by compare_methods"),
        (results_text([CATALOG["evonorm_b0"]]), "has 1 layers that Evolution accepted, for 2 seeds"),
        (results_text([CATALOG["evonorm_b0"], None]), "has 1 layers that Evolution accepted, for 2 seeds"),
        (None, r"cannot read the comparison .*comparison\.json"),
    ],
)
def test_results_that_do_not_do(text, message, tmp_path):
    path = tmp_path / "comparison.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        chosen_layers(str(path), 2)


def test_the_comparison_of_the_docs_has_a_layer_for_every_seed():
    config = transfer_mnist5k.get_config()
    rows = chosen_layers(config.comparison, len(config.seeds))
    paper = [method.title for method in METHODS.values() if method.of_paper]
    assert {title: len(layers) for title, layers in rows.items()} == dict.fromkeys(paper, 3)
