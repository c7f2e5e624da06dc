"""The whole comparison of search methods: interrupted, resumed, again, refused, and from the command line."""

import json
import os
import signal
import sys
import time
import zlib
from types import SimpleNamespace

import jax
import pytest
from support import mains, one_block

from evonorms_jax.evolution import session
from evonorms_jax.evolution.history import Evaluation
from evonorms_jax.models import networks
from evonorms_jax.study import comparison, proxy_training
from experiments.configs import compare_mnist5k

PAPER = ("random", "random_rejection", "random_search", "evolution")


def written(workdir):
    return json.loads((workdir / "compare_methods.json").read_text())


def history(workdir):
    lines = (workdir / "history.jsonl").read_text().splitlines() if workdir.exists() else []
    return [json.loads(line) for line in lines]


def files(workdir):
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


# -- With made-up scores


class MadeUp:
    """Stands for both evaluators: a score depends on the graph and the seed, and a quarter is accepted."""

    def __init__(self, calls, anchors, seed):
        self.calls, self.anchors, self.seed = calls, anchors, seed
        self.devices = SimpleNamespace(devices=jax.local_devices()[:1], used=False, idle_share=0.0)

    def _scores(self, graph):
        return {name: zlib.crc32(f"{graph} {name} {self.seed}".encode()) / 2**32 for name in self.anchors}

    def _call(self, name):
        self.calls.append(name)
        if len(self.calls) == self.calls.stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    def evaluate(self, graphs):
        return [Evaluation("accepted", {}, self._scores(graph)) for graph in graphs]

    def examine(self, graphs, history):
        del history
        self._call("examine")
        accepted = [zlib.crc32(str(graph).encode()) % 4 == 0 for graph in graphs]
        return [
            Evaluation(
                "accepted" if good else "low_quality", {}, self._scores(graph) if good else {}, steps=10
            )
            for graph, good in zip(graphs, accepted, strict=True)
        ]

    def learning_curves(self, graphs, steps):
        self._call("train")
        return [{name: [score] * len(steps) for name, score in self._scores(g).items()} for g in graphs]


@pytest.fixture
def calls(monkeypatch):
    """The rounds and trainings of made-up evaluators; Ctrl-C comes during call number `calls.stop_at`."""
    made = type("Calls", (list,), {"stop_at": None})()
    monkeypatch.setattr(
        session, "make_evaluator", lambda config, *_: MadeUp(made, config.anchors, config.seed)
    )
    monkeypatch.setattr(
        proxy_training,
        "_make_evaluator",
        lambda config, seed, plan: MadeUp(made, proxy_training._anchors(config, plan), seed),
    )
    return made


def quick(**changes):
    config = compare_mnist5k.get_config("quick")
    config.update_from_flattened_dict({"budget": 24, "seeds": (10, 11), "methods": PAPER, **changes})
    return config


def test_a_comparison_interrupted_anywhere_has_the_numbers_of_one_that_was_not(calls, tmp_path):
    comparison.run(quick(), tmp_path / "whole")
    whole = list(calls)
    # Two random searches of three rounds, then evolutions without the rounds that they share, then trainings.
    examined = whole.count("examine")
    assert 6 + 2 <= examined < 12 and whole[:3] == ["examine"] * 3
    assert set(whole[examined:]) == {"train"}
    rounds = 0
    # In the last round of a search, within the next, in the last round of the third, in the first training.
    for stop_at in (3, 2, 4, 4):
        calls.clear()
        calls.stop_at = stop_at
        with pytest.raises(KeyboardInterrupt, match="the same command resumes"):
            comparison.run(quick(), tmp_path / "stopped")
        assert not (tmp_path / "stopped" / "compare_methods.json").exists()
        rounds += len(calls)
    calls.clear()
    calls.stop_at = None
    comparison.run(quick(), tmp_path / "stopped")
    assert rounds + len(calls) == len(whole), "every round and training runs once"
    mine, other = written(tmp_path / "stopped"), written(tmp_path / "whole")
    assert mine | {"date": None} == other | {"date": None}


def test_the_same_comparison_again_trains_no_layer_and_gives_the_same_files(calls, tmp_path):
    comparison.run(quick(), tmp_path)
    before = files(tmp_path)
    calls.clear()
    comparison.run(quick(), tmp_path)
    assert not calls and files(tmp_path) == before


def test_more_seeds_add_to_a_comparison(calls, tmp_path):
    comparison.run(quick(seeds=(10,)), tmp_path)
    once = calls.count("examine")
    comparison.run(quick(seeds=(10, 11)), tmp_path)
    assert once < calls.count("examine") <= once + 6
    assert [len(row["runs"]) for row in written(tmp_path)["methods"]] == [2] * 4


def test_a_search_that_takes_over_evaluations_has_the_history_of_one_alone(calls, tmp_path):
    comparison.run(quick(seeds=(10,), methods=("evolution",)), tmp_path / "alone")
    alone = calls.count("examine")
    calls.clear()
    comparison.run(quick(seeds=(10,), methods=("random_search", "evolution")), tmp_path / "shared")
    assert calls.count("examine") < 3 + alone
    mine, other = (history(tmp_path / name / "searches" / "evolution-10") for name in ("alone", "shared"))
    assert mine == other and len(mine) == 24


def test_a_search_ends_when_its_steps_are_spent(calls, tmp_path):
    config = quick(seeds=(10,), methods=("random_search", "warm_uniform"), device_steps=100)
    comparison.run(config, tmp_path)
    for row in written(tmp_path)["methods"]:
        (run,) = row["runs"]
        assert (run["examined"], run["device_steps"]) == (10, 100), "two rounds, of which it pays for a part"
    assert len(history(tmp_path / "searches" / "warm_uniform-10")) == 16
    calls.clear()
    comparison.run(config, tmp_path)
    assert not calls


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 25}, "belongs to another config: budget is 24 there and 25 now"),
        ({"retraining.steps": 61}, "retraining.steps is 60 there and 61 now"),
    ],
    ids=["budget", "steps"],
)
def test_a_comparison_with_other_settings_is_refused(calls, tmp_path, change, message):
    comparison.run(quick(), tmp_path)
    calls.clear()
    with pytest.raises(ValueError, match=message):
        comparison.run(quick(**change), tmp_path)
    assert not calls
    with pytest.raises(ValueError, match="is the work directory of a single run"):
        comparison.run(quick(), tmp_path / "searches" / "evolution-10")


def test_without_matplotlib_it_says_so_before_it_searches(calls, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "evonorms_jax.study.figures", raising=False)
    with pytest.raises(ModuleNotFoundError, match="the figure needs matplotlib: pip install 'evonorms-jax"):
        comparison.run(quick(), tmp_path / "run")
    assert not calls and not (tmp_path / "run").exists()


# -- With trained layers


def assert_complete(workdir, output):
    """The paper's methods are compared on a budget of 16 with seed 1, and the files and the output agree."""
    results = written(workdir)
    names = [row["name"] for row in results["methods"]]
    assert names == [*PAPER]
    random_search, evolved = (
        history(workdir / "searches" / f"{search}-1") for search in ("random_search", "evolution")
    )
    assert len(random_search) == len(evolved) == 16
    first, rejection, search, evolution = (row["runs"][0] for row in results["methods"])
    assert first["chosen"]["graph"] == random_search[0]["graph"]
    # Evolution begins with the same random candidates, and they are scored the same way.
    for part in ("graph", "scores"):
        assert [record[part] for record in evolved[:8]] == [record[part] for record in random_search[:8]]
    assert rejection["best_so_far"] == search["best_so_far"][:1]
    assert evolution["examined"] == search["examined"] == 16
    for row in results["methods"] + results["known_layers"]:
        for part in ("searched", "held_out"):
            assert row[part] is None or 0 <= row[part]["mean"] <= 1
    assert results["known_layers"][0]["searched"]["mean"] > 0.5, "BN-ReLU learns stripes"
    assert "Random + rejection" in output and "written to" in output
    assert (workdir / "compare_methods.md").read_text() == comparison.make_table(results).markdown()
    for kind in ("svg", "png"):
        assert (workdir / f"compare_methods.{kind}").stat().st_size > 1000


one_block_config = one_block.config


def test_the_quick_form_compares_all_methods(one_block_config, monkeypatch, tmp_path, capsys):
    """On anchors whose programs are built in a fraction of the time."""
    monkeypatch.setitem(networks.ANCHORS, "held_out", one_block.NETWORK._replace(name="held_out"))
    config = quick(budget=16, seeds=(1,))
    config.anchors = one_block_config.anchors
    config.retraining.held_out_anchor = "held_out"
    comparison.run(config, tmp_path)
    assert_complete(tmp_path, capsys.readouterr().out)


def arguments(workdir, *overrides):
    config = f"--config={mains.CONFIGS}/compare_mnist5k.py:quick"
    paper = [
        f"--config.methods={name}" for name in ("random", "random_rejection", "random_search", "evolution")
    ]
    return [config, f"--workdir={workdir}", "--cpu_devices=2", "--config.budget=16", *paper, *overrides]


def run(workdir, *overrides):
    done = mains.run("compare_methods", *arguments(workdir, *overrides))
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.exhaustive
def test_the_command_interrupted_and_given_again_has_the_same_numbers(tmp_path):
    finished, workdir = tmp_path / "finished", tmp_path / "run"
    assert_complete(finished, run(finished, "--config.seeds=(1,)").stdout)
    process = mains.start("compare_methods", *arguments(workdir, "--config.seeds=(1,)"))
    place = workdir / "searches" / "random_search-1" / "history.jsonl"
    while process.poll() is None and not (place.exists() and place.stat().st_size):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "the same command resumes" in errors and "Traceback" not in errors
    assert not (workdir / "compare_methods.json").exists()
    run(workdir, "--config.seeds=(1,)")
    for mine, other in zip(written(workdir)["methods"], written(finished)["methods"], strict=True):
        assert mine["runs"][0] | {"device_minutes": 0} == other["runs"][0] | {"device_minutes": 0}
    before = files(workdir)
    assert run(workdir, "--config.seeds=(1,)").stderr.count("done before") == 2
    assert files(workdir) == before
