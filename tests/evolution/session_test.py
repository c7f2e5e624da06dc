"""Searches within this process: settings that are refused, baselines, methods, stops, histories."""

import json
import os
import shutil
import signal
from pathlib import Path

import jax
import pytest
from support.search_configs import quick

from evonorms_jax.data import DataNotFoundError
from evonorms_jax.errors import UserError
from evonorms_jax.evolution import session
from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.history import Evaluation
from evonorms_jax.evolution.records import read_search
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.runs.config_checks import load_config
from evonorms_jax.runs.hosts import Hosts
from evonorms_jax.search_space import Graph

CONFIGS = Path(__file__).parents[2] / "experiments" / "configs"
BUDGET = 60  # candidates of the quick forms


def search(config, workdir, evaluator, hosts=None):
    """Runs a search with programs that are built already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "make_evaluator", lambda *_: evaluator)
        return session.run_search(config, str(workdir), hosts)


def history(workdir):
    """The lines of the history without times, in which two runs of the same history may differ."""
    records = [json.loads(line) for line in (workdir / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def changed(**changes):
    config = quick()
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


# -- Settings


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", -1, "seed must be at least 0 and below 4294967296, got -1"),
        ("data.seed", -2, "data.seed must be at least 0 and below 4294967296, got -2"),
        ("proxy.optimizer", "adam", "unknown optimizer 'adam'; there are sgd, "),
        ("proxy.replicas", 0, "proxy.replicas must be at least 1, got 0"),
        ("proxy.eval_batch_size", 0, "proxy.eval_batch_size must be at least 1, got 0"),
        ("rejection.quality_threshold", -0.5, "rejection.quality_threshold must be at least 0, got -0.5"),
        ("layer.momentum", 1.5, "layer.momentum must be"),
        ("layer.momentum", -0.1, "layer.momentum must be"),
        ("anchors", ("resnet_smal",), "did you mean 'resnet_small'"),
        ("method", "evolve", "method must be one of evolution, random_search, random"),
        ("evolution.selection", "paretto", "unknown evolution.selection 'paretto'; did you mean 'pareto'"),
        ("evolution.survival", "ageing", "unknown evolution.survival 'ageing'; did you mean 'aging'"),
        ("search_space.ops", ("add", "sigmod"), "unknown op in search_space.ops 'sigmod'; did you mean"),
        ("search_space.num_nodes", 11, "search_space.num_nodes must be from 1 to 10"),
        ("data.source", "mnist", "did you mean 'mnist5k'"),
        ("data.crop", 99, "data.crop must be from 1 to"),
        ("rejection.quality_steps", 0, "rejection.quality_steps must be"),
        ("rejection.quality_steps", 61, "rejection.quality_steps must be from 1 to proxy.steps"),
        ("rejection.stability_anchor", "resnet_small", "rejection.stability_anchor must be one of"),
        ("evolution.seed_layers", ("evonorm_c0",), "evolution.seed_layers must be of"),
        ("baselines", ("bn_relo",), "baselines must be of bn_relu, "),
        ("baselines", ("lnc",), "baselines: lnc is out of the search space: "),
        ("executor", "fast", "executor must be one of universal, compiled"),
    ],
)
def test_a_wrong_setting_is_one_line_before_anything_is_trained(key, value, message, tmp_path):
    with pytest.raises(UserError) as raised:
        session.run_search(changed(**{key: value}), str(tmp_path / "run"))
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists(), "no work directory is left behind"


def test_missing_data_is_told_before_a_work_directory_is_made(tmp_path):
    config = changed(data__source="cifar10", data__data_dir=str(tmp_path), data__image_size=32)
    with pytest.raises(DataNotFoundError, match="download_and_prepare"):
        session.run_search(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


class Disagreeing(Hosts):
    def check_same(self, name, value):
        raise ValueError(f"{name} differs between process 0 and process 1")


def test_hosts_with_different_configs_are_refused(evaluator, tmp_path):
    with pytest.raises(ValueError, match="the config differs between process 0 and process 1"):
        search(quick(), tmp_path / "run", evaluator, Disagreeing())
    assert not (tmp_path / "run").exists()


# -- Baselines


class Untrained:
    """Two devices, of which one waits half of the time. Remembers the graphs of each call."""

    def __init__(self):
        self.devices = Devices(1, jax.local_devices()[:2])
        self.calls = []

    def evaluate(self, graphs):
        self.calls.append(list(graphs))
        self.devices.count([2.0, 1.0])
        return [Evaluation("accepted", {}, {"resnet_tiny": 0.5})] * len(graphs)

    def examine(self, graphs, history):
        del history
        return [Evaluation("inert", {})] * len(graphs)

    def retrain(self, graphs):
        return [{"resnet_tiny": [0.5, 0.6]}] * len(graphs)


class Terminated(Untrained):
    """Is asked to stop while it evaluates."""

    def evaluate(self, graphs):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().evaluate(graphs)


def test_baselines_are_saved_after_each_share_of_the_devices_and_a_stop_comes_in_between(tmp_path):
    workdir = tmp_path / "run"

    def run(evaluator):
        done = search(quick(), workdir, evaluator)
        layers = json.loads((workdir / "baselines.json").read_text())["layers"]
        return done, [layer["name"] for layer in layers], len(evaluator.calls)

    assert run(Terminated()) == (False, ["bn_relu", "gn_relu"], 1)
    assert not read_search(workdir).history
    assert run(Untrained()) == (True, list(quick().baselines), 1)
    found = read_search(workdir)
    assert found.finished and found.idle_share == 0.25
    assert run(Untrained()) == (True, list(quick().baselines), 0)
    assert read_search(workdir).idle_share == 0.25, "a run with nothing to do leaves it"


# -- Histories


@pytest.fixture(scope="module")
def finished(evaluator, tmp_path_factory):
    """The work directory of a quick search on two devices that was never stopped."""
    workdir = tmp_path_factory.mktemp("search") / "run"
    assert search(quick(), workdir, evaluator)
    return workdir


def test_a_quick_search_examines_its_budget(finished):
    found = read_search(finished)
    assert found.finished and not found.torn
    assert [record.index for record in found.history] == list(range(BUDGET))
    outcomes = {record.evaluation.outcome for record in found.history}
    assert {"inert", "accepted"} <= outcomes
    assert {record.proposal.origin for record in found.history} == {"random", "mutation"}
    assert all(r.evaluation.scores for r in found.history if r.evaluation.outcome == "accepted")
    assert found.saved and [layer.title for layer in found.baselines] == [
        "BN-ReLU",
        "GN-ReLU",
        "EvoNorm-B0",
        "EvoNorm-S0",
    ]


def test_the_same_search_again_changes_nothing(finished, evaluator):
    before = history(finished)
    assert search(quick(), finished, evaluator)
    assert history(finished) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "belongs to another config: seed is 0 there and 1 now"),
        ({"search_space.num_nodes": 9}, "search_space.num_nodes is 10 there and 9 now"),
        ({"search_space.ops": ("add", "max")}, "search_space.ops is ['add', 'mul'"),
    ],
)
def test_the_work_directory_of_another_search_is_refused(finished, evaluator, changes, message):
    before = history(finished)
    with pytest.raises(UserError) as raised:
        search(changed(**changes), finished, evaluator)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert history(finished) == before


@pytest.mark.exhaustive
@pytest.mark.parametrize("devices", [1, 8])
def test_the_number_of_devices_does_not_change_the_history(finished, evaluator_on, tmp_path, devices):
    assert search(quick(), tmp_path / "run", evaluator_on(devices))
    assert history(tmp_path / "run") == history(finished)


class Interrupted:
    """An evaluator that gets Ctrl-C while it examines its n-th round."""

    def __init__(self, evaluator, after):
        self.devices, self.evaluate = evaluator.devices, evaluator.evaluate
        self.retrain = evaluator.retrain
        self._evaluator, self._left = evaluator, after

    def examine(self, graphs, history):
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return self._evaluator.examine(graphs, history)


def test_stopped_again_and_again_it_ends_with_the_same_history(finished, evaluator, tmp_path):
    config, workdir, rounds = changed(rerank_replicas=0), tmp_path / "run", 0
    for after in (1, 2):
        assert not search(config, workdir, Interrupted(evaluator, after))
        rounds += after
        assert len(history(workdir)) == rounds * config.evolution.round_size
    assert search(config, workdir, evaluator)
    assert history(workdir) == history(finished)


@pytest.mark.parametrize("kept", [1, 9])
def test_killed_within_a_round_it_ends_with_the_same_history(finished, evaluator, tmp_path, kept):
    """Some lines of a round and half of the next one are on disk."""
    workdir = Path(shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints")))
    lines = (workdir / "history.jsonl").read_text().splitlines(keepends=True)
    (workdir / "history.jsonl").write_text("".join(lines[:kept]) + lines[kept][:60])
    assert search(quick(), workdir, evaluator)
    assert history(workdir) == history(finished)


# -- The re-ranking


def test_the_search_ends_with_a_re_ranking_of_its_best_layers_and_the_baselines(finished):
    found = read_search(finished)
    best = [record.index for record in found.history.ranked()[: found.config["top_k"]]]
    candidates = {layer.index: layer for layer in found.reranked if layer.index is not None}
    assert set(candidates) == set(best)
    assert [candidates[index].proxy_rank for index in best] == list(range(1, len(best) + 1))
    assert {layer.name for layer in found.reranked if layer.name} == set(quick().baselines)
    means = [layer.mean for layer in found.reranked]
    assert means == sorted(means, reverse=True)
    assert all(len(scores) == 2 for layer in found.reranked for scores in layer.scores.values())
    assert found.saved == [layer.index for layer in found.reranked if layer.index is not None]
    rows = json.loads((finished / "top_layers.json").read_text())["layers"]
    assert [row["reranked"]["mean"] for row in rows] == [candidates[row["index"]].mean for row in rows]


def test_a_re_ranking_that_was_stopped_trains_the_rest(finished, evaluator, tmp_path):
    workdir = Path(shutil.copytree(finished, tmp_path / "run"))
    rows = json.loads((workdir / "reranked.json").read_text())
    whole, rows["layers"] = rows["layers"], rows["layers"][1:3]
    (workdir / "reranked.json").write_text(json.dumps(rows))
    calls = Untrained()
    assert search(quick(), workdir, calls)
    made = json.loads((workdir / "reranked.json").read_text())["layers"]
    key = {json.dumps([row["index"], row["name"]]) for row in whole}
    assert {json.dumps([row["index"], row["name"]]) for row in made} == key and len(made) == len(whole)
    assert [row for row in made if row in whole] == whole[1:3], "the others have the scores of the fake"


# -- Methods and options


@pytest.mark.parametrize(
    ("changes", "outcomes"),
    [
        ({"method": "random_search", "budget": 12}, {"inert"}),
        ({"method": "random", "budget": 40}, {"accepted"}),
        ({"rejection.enabled": False, "budget": 3}, {"accepted", "diverged", "duplicate"}),
        ({"evolution.seed_layers": ("evonorm_b0", "bn_silu"), "budget": 2}, {"accepted"}),
        ({"evolution.selection": "nsga2", "evolution.survival": "nsga2", "budget": 32}, {"accepted"}),
        ({"evolution.selection": "pareto_cost", "budget": 32}, {"accepted"}),
        (
            {"search_space.ops": ("add", "div", "std_wh"), "search_space.num_nodes": 4, "budget": 16},
            {"inert"},
        ),
    ],
    ids=["random_search", "random", "no_rejection", "seed_layers", "nsga2", "pareto_cost", "search_space"],
)
def test_methods_and_options(changes, outcomes, evaluator, tmp_path, monkeypatch):
    enabled = changes.get("rejection.enabled", True)
    monkeypatch.setattr(evaluator, "_tests", evaluator._tests._replace(enabled=enabled))
    only_candidates = {"baselines": (), "rerank_replicas": 0}
    assert search(changed(**changes, **only_candidates), tmp_path / "run", evaluator)
    records = history(tmp_path / "run")
    found = [record["outcome"] for record in records]
    assert set(found) & outcomes
    if changes.get("method") == "random":
        assert found.index("accepted") == len(found) - 1
    else:
        assert len(found) == changes["budget"]
    if not enabled:
        assert set(found) <= outcomes
    if "search_space.ops" in changes:
        nodes = [record["graph"]["nodes"] for record in records]
        assert {len(each) for each in nodes} == {4}
        assert {op for each in nodes for op, _ in each} == set(changes["search_space.ops"])


@pytest.mark.parametrize("name", ["search_cifar10_b", "search_cifar10_s", "search_tfds", "search_mnist5k_s"])
def test_the_quick_form_of_every_config_runs(name, evaluator, tmp_path, monkeypatch):
    """Its programs are those of the shared evaluator: the settings that they depend on are the same."""
    config = load_config(f"{CONFIGS}/{name}.py:quick")
    for group in ("data", "anchors", "layer", "proxy", "executor"):
        assert config[group] == quick()[group], group
    config.rerank_replicas, config.baselines = 0, ()
    own = make_evaluator(config, devices=jax.local_devices()[:2])
    monkeypatch.setattr(evaluator, "_tests", own._tests)
    assert search(config, tmp_path / "run", evaluator)
    assert len(history(tmp_path / "run")) == BUDGET
    if name.endswith("_s"):
        graphs = [Graph.from_json(r["graph"]) for r in history(tmp_path / "run") if r["scores"]]
        assert graphs and not any(graph.batch_dependent for graph in graphs)
