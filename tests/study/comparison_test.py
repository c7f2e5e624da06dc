"""The parts of a comparison of methods: what each makes of its search, training anew, table and figure."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from evonorms_jax import data
from evonorms_jax.evolution import session
from evonorms_jax.evolution.history import Evaluation, Proposal, Record
from evonorms_jax.models import get_anchor
from evonorms_jax.search_space import BASELINES, CATALOG, Graph
from evonorms_jax.study import comparison_figure, retraining
from evonorms_jax.study.comparison_table import markdown, notes, table
from evonorms_jax.study.methods import apply_method, best_so_far, run_searches, search_config
from evonorms_jax.study.results import make_results, rises, summarize
from evonorms_jax.study.retraining import RETRAINED, Trained, check_settings, key, retrain
from experiments.configs import compare_mnist5k, search_mnist5k

ROOT = Path(__file__).parents[2]
NAMES = [*BASELINES, *CATALOG]
DASH = "\N{EN DASH}"


def records(*scores):
    """A history with one mean score a candidate, over two anchors; None is a rejected one."""
    made = []
    for index, score in enumerate(scores):
        graph = (BASELINES | CATALOG)[NAMES[index]]
        outcome, by_anchor = "low_quality", {}
        if score is not None:
            outcome, by_anchor = "accepted", {"a": score - 0.1, "b": score + 0.1}
        evaluation = Evaluation(outcome, {}, by_anchor, seconds=30.0)
        made.append(Record(index, Proposal(graph, "random"), evaluation))
    return made


def quick():
    return compare_mnist5k.get_config("quick")


# -- What a method makes of its search


def test_each_method_takes_its_part_of_the_search():
    made = records(None, None, 0.4, None, 0.7, 0.5)
    runs = {name: apply_method(name, 0, made) for name in ("random", "random_rejection", "random_search")}
    assert [len(run.examined) for run in runs.values()] == [1, 3, 6]
    assert [run.chosen.index for run in runs.values()] == [0, 2, 4]
    assert apply_method("evolution", 0, made).chosen.index == 4


def test_a_search_that_accepts_nothing_chooses_nothing_but_random_takes_any():
    made = records(None, None, None)
    assert apply_method("random", 0, made).chosen.index == 0
    for name in ("random_rejection", "random_search", "evolution"):
        run = apply_method(name, 0, made)
        assert run.chosen is None and len(run.examined) == 3


def test_the_best_so_far_rises_with_accepted_candidates_only():
    made = records(None, 0.4, None, 0.3, 0.6)
    np.testing.assert_allclose(best_so_far(made), [np.nan, 0.4, 0.4, 0.4, 0.6])
    assert rises(made) == [(2, pytest.approx(0.4)), (5, pytest.approx(0.6))]
    np.testing.assert_allclose(comparison_figure.curve(rises(made), 6), [np.nan, 0.4, 0.4, 0.4, 0.6, 0.6])
    assert rises(records(None, None)) == []


def test_the_mean_curve_begins_when_every_search_that_accepts_any_has_one():
    nothing, early, late = (np.array(c) for c in ([np.nan] * 3, [0.2, 0.2, 0.4], [np.nan, 0.6, 0.6]))
    np.testing.assert_allclose(comparison_figure.mean_curve([nothing, early, late]), [np.nan, 0.4, 0.5])
    assert np.isnan(comparison_figure.mean_curve([nothing, nothing])).all()


# -- Numbers and table


def test_mean_and_sample_deviation():
    assert summarize([0.1, 0.2, 0.6]) == {
        "mean": pytest.approx(0.3),
        "deviation": pytest.approx(0.2645751),  # sqrt((0.04 + 0.01 + 0.09) / 2)
        "number": 3,
    }
    assert summarize([0.5]) == {"mean": 0.5, "deviation": None, "number": 1}
    assert summarize([]) is None


@pytest.fixture
def results():
    """Two seeds: random search accepts something with the first one only, evolution with both."""
    config = quick()
    config.anchors, config.budget = ("a", "b"), 3
    config.retraining.held_out_anchor, config.retraining.seeds = "c", (100, 101)
    histories = {
        ("random_search", 0): records(None, 0.5, 0.4),
        ("random_search", 1): records(None, None, None),
        ("evolution", 0): records(None, 0.5, 0.6),
        ("evolution", 1): records(0.3, None, 0.7),
    }
    baseline = SimpleNamespace(title="BN-ReLU", outcome="accepted", scores={"a": 0.5, "b": 0.7})
    searches = {pair: SimpleNamespace(history=made, baselines=[baseline]) for pair, made in histories.items()}
    graphs = [(BASELINES | CATALOG)[name] for name in NAMES[:3]]
    # Of layer number n with seed 100 + k: 0.1 n + 0.02 k on a, 0.2 more on b, and 0.9 less a tenth of n on c.
    trainings = [
        Trained(
            key(g), 100 + k, {"a": n / 10 + k / 50, "b": n / 10 + k / 50 + 0.2, "c": 0.9 - n / 10}, "2026"
        )
        for n, g in enumerate(graphs)
        for k in range(2)
    ]
    return make_results(config, searches, {NAMES[1]: graphs[1]}, trainings)


def test_the_table_by_hand(results):
    header, rows = table(results)
    assert header[1:3] == ["search anchors, test %", "c, test %"]
    assert rows == [
        # Layer 0 both times: mean over anchors and fresh seeds 0.11.
        ["Random", "11.0 ± 0.0", "90.0 ± 0.0", DASH, DASH],
        # Layer 1 with one seed only: 0.21. Two candidates until it came, and three in vain.
        ["Random + rejection", "21.0 (1 of 2 searches)", "80.0 (1 of 2 searches)", "0.5 / 2", "1.2"],
        ["Random search + rejection", "21.0 (1 of 2 searches)", "80.0 (1 of 2 searches)", "1 / 3", "1.5"],
        ["Evolution", "31.0 ± 0.0", "70.0 ± 0.0", "2 / 3", "1.5"],
        # Two fresh seeds, 0.20 and 0.22.
        ["BN-SiLU", "21.0 ± 1.4", "80.0 ± 0.0", DASH, DASH],
    ]
    lines = markdown(results).splitlines()
    assert lines[0].startswith("| layer | search anchors") and lines[1] == "| --- | --- | --- | --- | --- |"
    assert (
        lines[3] == "| Random + rejection | 21.0 (1 of 2 searches) | 80.0 (1 of 2 searches) | 0.5 / 2 | 1.2 |"
    )
    assert "with fresh seeds (100, 101)" in notes(results) and notes(results) in lines


def test_none_accepted_is_no_number(results):
    row = next(row for row in results["methods"] if row["name"] == "random_search")
    row.update(searched=None, held_out=None, examined=3.0)
    cells = table(results)[1][2]
    assert cells[1:3] == ["none accepted in 3"] * 2


def test_the_results_hold_what_was_chosen_and_what_the_known_layers_got(results):
    evolution = results["methods"][-1]
    assert [run["chosen"]["index"] for run in evolution["runs"]] == [2, 2]
    assert evolution["runs"][1]["best_so_far"] == [(1, pytest.approx(0.3)), (3, pytest.approx(0.7))]
    assert results["references"]["bn_relu"] == {"mean": pytest.approx(0.6), "deviation": 0, "number": 2}
    assert results["references"]["evonorm_b0"] is None, "rejected or absent: no line"
    assert json.loads(json.dumps(results))["methods"][1]["runs"][1]["chosen"] is None


def test_the_figure_names_every_line(results):
    made = json.loads(json.dumps(results))  # as it is read back
    (axes,) = comparison_figure.draw(made).axes
    assert {text.get_text() for text in axes.texts} == {
        "Evolution",
        "Random search + rejection (1 of 2 seeds)",
        "Random + rejection (1 of 2 seeds)",
        "BN-ReLU",
    }
    for row in made["methods"]:
        row["runs"] = [run | {"best_so_far": [], "chosen": None} for run in row["runs"]]
    made["references"] = {}
    (axes,) = comparison_figure.draw(made).axes
    assert "Evolution: none accepted" in [text.get_text() for text in axes.texts]
    assert comparison_figure.render(made, "png").startswith(b"\x89PNG")
    assert b"<svg" in (drawn := comparison_figure.render(made, "svg")) and drawn == comparison_figure.render(
        made, "svg"
    )


# -- Settings and images


def test_a_search_of_the_comparison_is_the_default_search_without_seed_layers():
    config = search_config(compare_mnist5k.get_config(), "evolution", 2).to_dict()
    default = search_mnist5k.get_config().to_dict()
    assert (config.pop("seed"), config.pop("method")) == (2, "evolution")
    for fields in (config, default):
        del fields["budget"], fields["name"], fields["evolution"]["seed_layers"]
        fields.pop("seed", None), fields.pop("method", None)
    assert config == default


@pytest.mark.parametrize("form", ["full", "quick"])
def test_the_configs_are_ready_to_run(form, tmp_path):
    config = compare_mnist5k.get_config(form)
    check_settings(config, tmp_path)
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
        ({"retraining.seeds": (-1,)}, "retraining.seeds must be at least 0"),
        (
            {"retraining.seeds": (7, 1)},
            "retraining.seeds must be none of those of the searches, got 1 in both",
        ),
        ({"retraining.steps": 0}, "retraining.steps must be at least 1, got 0"),
        ({"retraining.schedule": "cosin"}, "did you mean 'cosine'"),
        ({"retraining.held_out_anchor": "resnet_smal"}, "did you mean 'resnet_small'"),
        ({"retraining.held_out_anchor": "resnet_tiny"}, "must be none of the anchors, got 'resnet_tiny'"),
        ({"known_layers": ("evonorm_b9",)}, "unknown layer 'evonorm_b9' in known_layers; did you mean"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_wrong_settings_are_found_before_the_searches(change, message, tmp_path):
    config = quick()
    config.update_from_flattened_dict(change)
    with pytest.raises(ValueError) as caught:
        check_settings(config, tmp_path)
    assert message in str(caught.value)


class Caught(Exception):
    """Carries what an `Evaluator` was asked to work with."""


def catching(*arguments, **options):
    raise Caught(*arguments, options)


def images_for_search(config, tmp_path):
    with pytest.raises(Caught) as caught:
        run_searches(config, tmp_path)
    return caught.value.args[1]


@pytest.mark.parametrize("form", ["full", "quick"])
def test_no_search_sees_a_test_image_and_every_new_training_is_scored_on_them(form, tmp_path, monkeypatch):
    config = compare_mnist5k.get_config(form)
    config.retraining.held_out_anchor = "resnet_tiny" if form == "full" else "resnet_small"
    monkeypatch.setattr(session, "Evaluator", catching)
    monkeypatch.setattr(retraining, "Evaluator", catching)
    searched = images_for_search(config, tmp_path)
    with pytest.raises(Caught) as caught:
        retrain(config, tmp_path / "retraining", [BASELINES["bn_relu"]])
    anchors, trained, settings, tests, _, options = caught.value.args
    fields = {k: v for k, v in config.data.items() if k not in ("crop", "flip")}
    test_part = data.load(**fields, with_test=True).test

    def seen(images):
        return {image.tobytes() for image in images}

    assert searched.test is None and trained.test is None
    assert not seen(test_part.images) & (seen(searched.train.images) | seen(searched.validation.images))
    assert np.array_equal(trained.train.images, searched.train.images)
    assert np.array_equal(trained.validation.images, test_part.images)
    assert np.array_equal(trained.validation.labels, test_part.labels)
    assert not tests.enabled and options["seed"] == config.retraining.seeds[0]
    assert [anchor.name for anchor in anchors] == [*config.anchors, config.retraining.held_out_anchor]
    assert (settings.steps, settings.replicas) == (config.retraining.steps, 1)


# -- Training anew


class FakeEvaluator:
    """Scores by the length of the equation and the seed; stops the process's work after so many calls."""

    devices = SimpleNamespace(devices=[0, 1])

    def __init__(self, calls, seed, stop_after):
        self.calls, self.seed, self.stop_after = calls, seed, stop_after

    def learning_curves(self, graphs, steps):
        assert steps == [60]
        self.calls.append((self.seed, [key(graph) for graph in graphs]))
        if len(self.calls) == self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)
        score = self.seed / 1000
        return [{"resnet_tiny": [score], "resnet_small": [score + len(str(g)) / 1e4]} for g in graphs]


@pytest.fixture
def calls(monkeypatch):
    """Of `learning_curves`; `calls.stop_after` sends Ctrl-C during that one."""
    made = type("Calls", (list,), {"stop_after": None})()
    monkeypatch.setattr(
        retraining, "_make_evaluator", lambda config, seed: FakeEvaluator(made, seed, made.stop_after)
    )
    return made


def test_stopped_it_keeps_what_is_done_and_goes_on_with_the_rest(calls, tmp_path):
    config = quick()
    config.retraining.seeds = (100, 101)
    graphs = [CATALOG[name] for name in ("evonorm_b0", "evonorm_b1", "evonorm_s0")]
    calls.stop_after = 3
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        retrain(config, tmp_path / "stopped", graphs)
    assert [(seed, len(layers)) for seed, layers in calls] == [(100, 2), (100, 1), (101, 2)]
    saved = json.loads((tmp_path / "stopped" / RETRAINED).read_text())["trainings"]
    assert len(saved) == 5, "also what was under way when Ctrl-C came"
    calls.clear()
    calls.stop_after = None
    resumed = retrain(config, tmp_path / "stopped", graphs)
    assert [(seed, len(layers)) for seed, layers in calls] == [(101, 1)]
    calls.clear()
    assert retrain(config, tmp_path / "stopped", graphs) == resumed and not calls
    uninterrupted = retrain(config, tmp_path / "whole", graphs)
    assert [row[:3] for row in resumed] == [row[:3] for row in uninterrupted]


def test_the_same_layer_is_trained_once_and_more_seeds_add_to_it(calls, tmp_path):
    same = [Graph.parse("x * sigmoid(x)"), Graph.parse("sigmoid(x) * x"), Graph.parse("sigmoid(x) * x", None)]
    assert len({key(graph) for graph in same}) == 1
    config = quick()
    assert len(retrain(config, tmp_path, same)) == 1
    config.retraining.seeds = (100, 200)
    assert [row.seed for row in retrain(config, tmp_path, same)] == [100, 200]
    assert [seed for seed, _ in calls] == [100, 200]


def test_trainings_with_other_settings_are_no_part_of_it(calls, tmp_path):
    config = quick()
    retrain(config, tmp_path, [CATALOG["evonorm_b0"]])
    config.seeds, config.known_layers, config.budget = (5, 6), ("gn_relu",), 7
    check_settings(config, tmp_path)
    config.retraining.steps = 61
    with pytest.raises(ValueError, match=r"retraining.steps is 60 there and 61 now"):
        check_settings(config, tmp_path)
    (tmp_path / RETRAINED).write_text("{")
    config.retraining.steps = 60
    with pytest.raises(ValueError, match="is damaged: move it away"):
        retrain(config, tmp_path, [CATALOG["evonorm_b0"]])
    assert len(calls) == 1
