"""The comparison of search methods: its numbers, its table and its settings."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from support.studies import KNOWN, records

from evonorms_jax.models import get_anchor
from evonorms_jax.search_space import BASELINES, CATALOG
from evonorms_jax.study.cells import Cell
from evonorms_jax.study.comparison import check_settings, choose, make_results, make_table
from evonorms_jax.study.figures import curve, draw_comparison, mean_curve
from evonorms_jax.study.methods import METHODS, Method, apply_method
from evonorms_jax.study.proxy_training import key
from evonorms_jax.study.table import DASH
from experiments.configs import compare_mnist5k

NAMES = [*BASELINES, *CATALOG]
PAPER = ("random", "random_rejection", "random_search", "evolution")


class Scores:
    """A runner whose results are known: accuracy by row, column and seed."""

    def __init__(self, scores):
        self._scores = scores

    def result(self, cell):
        return {"test": {"accuracy": self._scores[cell[:3]]}, "date": f"2026-11-2{cell.seed - 100}"}


def made_up(**others):
    """Two seeds: random search accepts a layer with the first one only, evolution with both."""
    config = compare_mnist5k.get_config("quick")
    config.anchors, config.budget, config.device_steps = ("a", "b"), 3, None
    config.seeds, config.methods = (0, 1), PAPER
    config.reranking.top = 1
    config.retraining.held_out_anchor, config.retraining.seeds = "c", (100, 101)
    histories = {
        ("random_search", 0): records(None, 0.5, 0.4),
        ("random_search", 1): records(None, None, None),
        ("evolution", 0): records(None, 0.5, 0.6),
        ("evolution", 1): records(0.3, None, 0.7),
    }
    histories |= {(name, seed): history for name, each in others.items() for seed, history in enumerate(each)}
    baseline = SimpleNamespace(title="BN-ReLU", outcome="accepted", scores={"a": 0.5, "b": 0.7})
    searches = {pair: SimpleNamespace(history=made, baselines=[baseline]) for pair, made in histories.items()}
    scores = {}
    for number, graph in enumerate(KNOWN[:3]):
        for k in range(2):
            low = number / 10 + k / 50
            by_anchor = {"a": low, "b": low + 0.2, "c": 0.9 - number / 10}
            scores |= {(key(graph), anchor, 100 + k): score for anchor, score in by_anchor.items()}
    made = [Cell(*place, name=str(place), training=None) for place in scores]
    if others:
        config.methods = (*PAPER, *others)
    return make_results(config, searches, {}, {NAMES[1]: KNOWN[1]}, Scores(scores), made)


@pytest.fixture
def results():
    return made_up()


def test_another_method_is_one_more_row_and_curve(monkeypatch):
    method = Method("Evolution from BN-ReLU", "from_bn", lambda records: records)
    monkeypatch.setitem(METHODS, "from_bn", method)
    results = made_up(from_bn=[records(0.2, 0.9, 0.5), records(None, 0.8, 0.5)])
    table = make_table(results)
    # Layer 1 with both seeds, where evolution has layer 2: 0.21 and 0.31.
    gains = ["-10.0 (-10.0 to -10.0)", "+10.0 (+10.0 to +10.0)"]
    costs = ["2.5 / 3", "0", "1.5"]
    assert table.rows[4] == [method.title, "21.0 ± 0.0", "80.0 ± 0.0", *gains, "0", "21.0", *costs]
    (axes,) = draw_comparison(json.loads(json.dumps(results))).axes
    assert method.title in [text.get_text() for text in axes.texts]


def test_the_table_by_hand(results):
    table = make_table(results)
    assert table.header[1:3] == ["search anchors, test %", "c, test %"]
    once = ["21.0 (1 of 2 searches)", "80.0 (1 of 2 searches)"]
    none = "+0.0 (+0.0 to +0.0)"
    gain, loss = "+10.0 (+10.0 to +10.0)", "-10.0 (-10.0 to -10.0)"
    assert table.rows == [
        # Layer 0 both times: mean over anchors and fresh seeds 0.11, of those above 0 0.147.
        ["Random", "11.0 ± 0.0", "90.0 ± 0.0", DASH, DASH, "17", "14.7", DASH, DASH, DASH],
        # Layer 1 with one seed only: 0.21. Two candidates until it came, and three in vain.
        ["Random + rejection", *once, gain, loss, "0", "21.0", "0.5 / 2", "0", "1.2"],
        ["Random search + rejection", *once, none, none, "0", "21.0", "1 / 3", "0", "1.5"],
        ["Evolution", "31.0 ± 0.0", "70.0 ± 0.0", gain, loss, "0", "31.0", "2 / 3", "0", "1.5"],
        # Two fresh seeds, 0.20 and 0.22.
        ["BN-SiLU", "21.0 ± 1.4", "80.0 ± 0.0", DASH, DASH, "0", "21.0", DASH, DASH, DASH],
    ]
    assert "with fresh seeds (100, 101)" in table.notes and table.section == 4


def test_the_gain_is_paired_by_seed_and_lost_trainings_are_counted(results):
    """Evolution gains 0.1 and 0.3 over a random search whose scores differ by more than that."""
    *_, search, evolution = results["methods"]
    for method, scores in ((search, (0.2, 0.7)), (evolution, (0.3, 1.0))):
        for run, score in zip(method["runs"], scores, strict=True):
            by_seed = {"100": {"a": score, "b": score, "c": 0.0}}
            means = {"searched": {"mean": score}, "held_out": {"mean": 0.0}}
            run["test"] = {**means, "by_seed": by_seed}
    row = make_table(results).rows[3]
    assert row[3:7] == ["+20.0 (+10.0 to +30.0)", "+0.0 (+0.0 to +0.0)", "33", "65.0"]


def test_none_accepted_is_no_number(results):
    row = next(row for row in results["methods"] if row["name"] == "random_search")
    row.update(searched=None, held_out=None, examined=3.0)
    assert make_table(results).rows[2][1:3] == ["none accepted in 3"] * 2


def test_the_results_hold_the_chosen_layers_and_the_scores_of_the_baselines(results):
    evolution = results["methods"][-1]
    assert [run["chosen"]["index"] for run in evolution["runs"]] == [2, 2]
    assert evolution["runs"][1]["best_so_far"] == [(1, pytest.approx(0.3)), (3, pytest.approx(0.7))]
    assert results["references"]["bn_relu"] == {"mean": pytest.approx(0.6), "deviation": 0, "number": 2}
    assert results["references"]["evonorm_b0"] is None, "rejected or absent: no line"
    assert json.loads(json.dumps(results))["methods"][1]["runs"][1]["chosen"] is None
    assert results["date"] == "2026-11-21"


def test_the_best_mean_with_fresh_seeds_chooses_the_layer():
    made = records(0.5, 0.7, None, 0.6)
    run = apply_method("evolution", 0, made, top=3)
    assert [record.index for record in run.finalists] == [1, 3, 0]
    ranking = {key(made[index].graph): {"mean": mean} for index, mean in ((0, 0.4), (1, 0.5), (3, 0.5))}
    assert choose(run, ranking).index == 1, "the better one in the search among equals"
    ranking[key(made[0].graph)]["mean"] = 0.6
    assert choose(run, ranking).index == 0
    assert choose(run._replace(finalists=[]), ranking) is None


def test_methods_beyond_the_paper_are_named_so(results):
    assert "beyond the paper" not in make_table(results).notes
    results["methods"][-1]["of_paper"] = False
    table = make_table(results)
    assert "go beyond the paper" in table.notes
    assert table.rows[3][3:5] == [DASH, DASH], "compared with methods of its kind only"


def test_the_notes_have_the_budget_the_re_ranking_and_the_rule_for_the_end(results):
    config = results["config"]
    notes = make_table(results).notes
    assert "Every search examines 3 candidates." in notes
    assert "The 1 best layers of a search" in notes and "set before the run: all seeds" in notes
    config["device_steps"], config["reranking"], config["stop_rule"] = 1000, None, ""
    notes = make_table(results).notes
    assert "a budget of 1,000 steps" in notes and "best layers" not in notes and "rule" not in notes


def test_a_curve_rises_where_its_search_did():
    np.testing.assert_allclose(
        curve([(2, 0.4), (5, 0.6)], np.arange(1, 7)), [np.nan, 0.4, 0.4, 0.4, 0.6, 0.6]
    )


def test_the_mean_curve_begins_when_every_search_that_accepts_any_has_one():
    nothing, early, late = (np.array(c) for c in ([np.nan] * 3, [0.2, 0.2, 0.4], [np.nan, 0.6, 0.6]))
    np.testing.assert_allclose(mean_curve([nothing, early, late]), [np.nan, 0.4, 0.5])
    assert np.isnan(mean_curve([nothing, nothing])).all()


def test_the_figure_names_every_line(results):
    made = json.loads(json.dumps(results))  # as it is read back
    (axes,) = draw_comparison(made).axes
    assert {text.get_text() for text in axes.texts} == {
        "Evolution",
        "Random search + rejection (1 of 2 seeds)",
        "Random + rejection (1 of 2 seeds)",
        "BN-ReLU",
    }
    for row in made["methods"]:
        row["runs"] = [run | {"best_so_far": [], "chosen": None} for run in row["runs"]]
    made["references"] = {}
    (axes,) = draw_comparison(made).axes
    assert "Evolution: none accepted" in [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("form", ["full", "quick"])
def test_the_configs_are_ready_to_run(form):
    config = compare_mnist5k.get_config(form)
    assert set(check_settings(config)) == set(config.known_layers)
    assert config.retraining.steps >= config.proxy.steps
    assert not config.evolution.seed_layers
    assert get_anchor(config.retraining.held_out_anchor)
    if form == "full":
        assert min(len(config.seeds), len(config.retraining.seeds)) >= 3
        assert set(CATALOG) | {"bn_relu", "bn_silu", "gn_relu"} == set(config.known_layers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": ()}, "seeds must be different numbers, at least one, got ()"),
        ({"seeds": (1, 1)}, "seeds must be different numbers"),
        ({"methods": ("evolutio",)}, "methods must be of random, random_rejection"),
        ({"methods": ()}, "methods must name at least one of"),
        ({"device_steps": 0}, "device_steps must be at least 1, got 0"),
        ({"reranking.top": 0}, "reranking.top must be at least 1, got 0"),
        ({"reranking.seeds": (10,)}, "reranking.seeds must differ from those of seeds, got 10 in both"),
        ({"retraining.seeds": (-1,)}, "retraining.seeds must be at least 0"),
        (
            {"retraining.seeds": (7, 100)},
            "retraining.seeds must differ from those of reranking.seeds, got 100 in both",
        ),
        ({"retraining.steps": 0}, "retraining.steps must be at least 1, got 0"),
        ({"retraining.schedule": "cosin"}, "did you mean 'cosine'"),
        ({"retraining.held_out_anchor": "resnet_smal"}, "did you mean 'resnet_small'"),
        ({"retraining.held_out_anchor": "resnet_tiny"}, "must differ from the anchors, got 'resnet_tiny'"),
        ({"known_layers": ("evonorm_b9",)}, "unknown layer 'evonorm_b9' in known_layers; did you mean"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_wrong_settings_are_found_before_the_searches(change, message):
    config = compare_mnist5k.get_config("quick")
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError) as caught:
        check_settings(config)
    assert message in str(caught.value)
