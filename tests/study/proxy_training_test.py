"""Proxy trainings: their images, what a stop keeps, and which trainings are shared."""

import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from evonorms_jax import data
from evonorms_jax.evolution import session
from evonorms_jax.search_space import BASELINES, CATALOG, Graph
from evonorms_jax.study import cells, proxy_training
from evonorms_jax.study.arms import run_searches
from evonorms_jax.study.proxy_training import RETRAINED, ProxyTraining, key, make_cells
from experiments.configs import compare_mnist5k


def quick():
    return compare_mnist5k.get_config("quick")


class Caught(Exception):
    """Carries the arguments of an `Evaluator`."""


def catching(*arguments, **options):
    raise Caught(*arguments, options)


@pytest.mark.parametrize("form", ["full", "quick"])
def test_no_search_sees_a_test_image_and_every_new_training_is_scored_on_them(form, tmp_path, monkeypatch):
    config = compare_mnist5k.get_config(form)
    config.retraining.held_out_anchor = "resnet_tiny" if form == "full" else "resnet_small"
    monkeypatch.setattr(session, "Evaluator", catching)
    monkeypatch.setattr(proxy_training, "Evaluator", catching)
    with pytest.raises(Caught) as caught:
        run_searches(config, tmp_path)
    searched = caught.value.args[1]
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
    with pytest.raises(Caught) as caught:
        runner = ProxyTraining(config, tmp_path / "reranking", "reranking")
        cells.run(runner, make_cells(config, [BASELINES["bn_relu"]], "reranking"))
    anchors, ranked, settings, _, _, options = caught.value.args
    assert np.array_equal(ranked.validation.images, searched.validation.images)
    assert [anchor.name for anchor in anchors] == [*config.anchors]
    assert (settings.steps, options["seed"]) == (config.reranking.steps, config.reranking.seeds[0])


class FakeEvaluator:
    """Scores by the length of the equation and the seed, and sends Ctrl-C during one of the calls."""

    devices = SimpleNamespace(devices=[0, 1])

    def __init__(self, calls, seed):
        self.calls, self.seed = calls, seed

    def learning_curves(self, graphs, steps):
        assert steps == [60]
        self.calls.append((self.seed, [key(graph) for graph in graphs]))
        if len(self.calls) == self.calls.stop_after:
            os.kill(os.getpid(), signal.SIGINT)
        score = self.seed / 1000
        return [{"resnet_tiny": [score], "resnet_small": [score + len(str(g)) / 1e4]} for g in graphs]


@pytest.fixture
def calls(monkeypatch):
    """Calls of `learning_curves`; `calls.stop_after` sends Ctrl-C during that one."""
    made = type("Calls", (list,), {"stop_after": None})()
    monkeypatch.setattr(
        proxy_training, "_make_evaluator", lambda config, seed, plan: FakeEvaluator(made, seed)
    )
    return made


def retrain(config, workdir, graphs):
    """Trains as a comparison does, and returns the accuracies by row, column and seed."""
    runner, made = ProxyTraining(config, workdir), make_cells(config, graphs)
    cells.run(runner, made)
    return {cell[:3]: runner.result(cell)["test"]["accuracy"] for cell in made}


def test_stopped_it_keeps_finished_work_and_resumes_with_the_rest(calls, tmp_path):
    config = quick()
    config.retraining.seeds = (200, 201)
    graphs = [CATALOG[name] for name in ("evonorm_b0", "evonorm_b1", "evonorm_s0")]
    calls.stop_after = 3
    with pytest.raises(KeyboardInterrupt, match="the same command resumes"):
        retrain(config, tmp_path / "stopped", graphs)
    assert [(seed, len(layers)) for seed, layers in calls] == [(200, 2), (200, 1), (201, 2)]
    saved = json.loads((tmp_path / "stopped" / RETRAINED).read_text())["trainings"]
    assert len(saved) == 5, "also the ones that ran when Ctrl-C came"
    calls.clear()
    calls.stop_after = None
    resumed = retrain(config, tmp_path / "stopped", graphs)
    assert [(seed, len(layers)) for seed, layers in calls] == [(201, 1)]
    calls.clear()
    assert retrain(config, tmp_path / "stopped", graphs) == resumed and not calls
    assert resumed == retrain(config, tmp_path / "whole", graphs) and len(resumed) == 3 * 2 * 2


def test_the_same_layer_is_trained_once_and_more_seeds_add_to_it(calls, tmp_path):
    same = [Graph.parse("x * sigmoid(x)"), Graph.parse("sigmoid(x) * x"), Graph.parse("sigmoid(x) * x", None)]
    assert len({key(graph) for graph in same}) == 1
    config = quick()
    assert len(retrain(config, tmp_path, same)) == 2  # the anchor of the search and the one held out
    config.retraining.seeds = (200, 300)
    assert {seed for _, _, seed in retrain(config, tmp_path, same)} == {200, 300}
    assert [seed for seed, _ in calls] == [200, 300]


def test_trainings_with_other_settings_are_refused(calls, tmp_path):
    config = quick()
    retrain(config, tmp_path, [CATALOG["evonorm_b0"]])
    config.seeds, config.known_layers, config.budget = (5, 6), ("gn_relu",), 7
    retrain(config, tmp_path, [CATALOG["evonorm_b0"]])
    config.retraining.steps = 61
    with pytest.raises(ValueError, match=r"retraining.steps is 60 there and 61 now"):
        ProxyTraining(config, tmp_path)
    (tmp_path / RETRAINED).write_text("{")
    config.retraining.steps = 60
    with pytest.raises(ValueError, match="is damaged: move it away"):
        ProxyTraining(config, tmp_path)
    assert len(calls) == 1
