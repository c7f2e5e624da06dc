"""The search methods: the part of a search that each one reads, and the layers that they chose."""

import json

import numpy as np
import pytest
from etils import epath
from support.report_workdirs import ANCHORS, CONFIG, write_workdir
from support.studies import records

from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.evolution.proposal import EvolutionSettings
from evonorms_jax.evolution.search import search
from evonorms_jax.search_space import CATALOG
from evonorms_jax.study.comparison import rises
from evonorms_jax.study.methods import (
    METHODS,
    SEARCHES,
    apply_method,
    best_so_far,
    chosen_layers,
    search_config,
    search_dir,
)
from experiments.configs import compare_mnist5k, search_mnist5k, transfer_mnist5k

# -- The part of a search that a method reads


def test_each_method_takes_its_part_of_the_search():
    made = records(None, None, 0.4, None, 0.7, 0.5)
    runs = {name: apply_method(name, 0, made) for name in ("random", "random_rejection", "random_search")}
    assert [len(run.examined) for run in runs.values()] == [1, 3, 6]
    assert [run.chosen.index for run in runs.values()] == [0, 2, 4]
    assert apply_method("evolution", 0, made).chosen.index == 4


def test_a_search_that_accepts_no_candidate_chooses_none_but_random_takes_any():
    made = records(None, None, None)
    assert apply_method("random", 0, made).chosen.index == 0
    for name in ("random_rejection", "random_search", "evolution"):
        run = apply_method(name, 0, made)
        assert run.chosen is None and len(run.examined) == 3


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
    assert run.chosen.graph == alone[-1].graph


def test_the_best_so_far_rises_with_accepted_candidates_only():
    made = records(None, 0.4, None, 0.3, 0.6)
    np.testing.assert_allclose(best_so_far(made), [np.nan, 0.4, 0.4, 0.4, 0.6])
    assert rises(made) == [(2, pytest.approx(0.4)), (5, pytest.approx(0.6))]
    assert rises(records(None, None)) == []


def test_a_search_of_the_comparison_is_the_default_search_without_seed_layers():
    config = search_config(compare_mnist5k.get_config(), "evolution", 2).to_dict()
    default = search_mnist5k.get_config().to_dict()
    assert (config.pop("seed"), config.pop("method")) == (2, "evolution")
    for fields in (config, default):
        del fields["budget"], fields["name"], fields["evolution"]["seed_layers"]
        fields.pop("seed", None), fields.pop("method", None)
    assert config == default


def test_another_search_differs_from_the_comparison_by_its_settings(monkeypatch):
    from_bn = {"method": "evolution", "evolution.seed_layers": ("bn_relu",)}
    monkeypatch.setitem(SEARCHES, "from_bn", from_bn)
    made, evolution = (search_config(compare_mnist5k.get_config(), s, 2) for s in ("from_bn", "evolution"))
    assert made.evolution.seed_layers == ("bn_relu",)
    made.evolution.seed_layers = ()
    assert made.to_dict() == evolution.to_dict()


# -- The layers that the methods chose


def comparison(path, seeds, budget=4):
    """Searches of 4 candidates, of which the third and the last, the best, are accepted."""
    names = list(CATALOG)
    for seed in seeds:
        for method in SEARCHES:
            history = History()
            for index in range(4):
                scores = dict.fromkeys(ANCHORS, 0.1 * index) if index in (2, 3) else {}
                outcome = "accepted" if scores else "low_quality"
                graph = CATALOG[names[(index + seed) % len(names)]]
                evaluation = Evaluation(outcome, {}, scores, fingerprint=str(index))
                history.append(Record(index, Proposal(graph, "random"), evaluation))
            folder = search_dir(epath.Path(path), method, seed)
            folder.parent.mkdir(parents=True, exist_ok=True)
            write_workdir(folder, history, CONFIG | {"budget": budget})
    return str(path)


def test_a_method_has_a_layer_for_each_seed(tmp_path):
    rows = chosen_layers(comparison(tmp_path, seeds=(0, 1)), 2)
    names = list(CATALOG)
    assert rows["Random"] == [CATALOG[names[0]], CATALOG[names[1]]]
    assert rows["Random + rejection"] == [CATALOG[names[2]], CATALOG[names[3]]]
    assert rows["Evolution"] == [CATALOG[names[3]], CATALOG[names[4]]]


@pytest.mark.parametrize(
    ("seeds", "budget", "message"),
    [((0,), 4, "random_search-1"), ((0, 1), 5, "random_search-0 is not finished; compare_methods resumes")],
    ids=["too few seeds", "not finished"],
)
def test_searches_that_do_not_do(seeds, budget, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        chosen_layers(comparison(tmp_path, seeds, budget), 2)


def results_text(graphs, title="Evolution"):
    runs = [{"chosen": graph and {"graph": graph.to_json()}} for graph in graphs]
    return json.dumps({"methods": [{"title": title, "runs": runs}]})


def test_the_results_of_a_comparison_do_instead_of_its_searches(tmp_path):
    graphs = list(CATALOG.values())[:3]
    (tmp_path / "comparison.json").write_text(results_text(graphs))
    assert chosen_layers(str(tmp_path / "comparison.json"), 2) == {"Evolution": graphs[:2]}


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
    assert {title: len(layers) for title, layers in rows.items()} == {
        method.title: 3 for method in METHODS.values()
    }
