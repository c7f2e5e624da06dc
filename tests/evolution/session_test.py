"""A search before its first candidate: settings that are refused, baselines saved as they come."""

import json
import math
import os
import signal

import jax
import pytest
from support.search_configs import quick

from evonorms_jax.evolution import session
from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.history import Evaluation
from evonorms_jax.evolution.records import read_search
from evonorms_jax.evolution.session import make_evaluator


@pytest.mark.parametrize(
    ("key", "value", "limit"),
    [
        ("seed", -1, "at least 0 and below 4294967296"),
        ("layer.epsilon", math.nan, "at least 0"),
        ("layer.epsilon", -1.0, "at least 0"),
        ("proxy.learning_rate", math.nan, "above 0"),
        ("proxy.weight_decay", math.nan, "at least 0"),
        ("proxy.momentum", math.nan, "at least 0 and below 1"),
        ("rejection.stability_steps", -1, "at least 0"),
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_is_trained(key, value, limit):
    config = quick()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError) as raised:
        make_evaluator(config)
    assert str(raised.value) == f"{key} must be {limit}, got {value}"


class Evaluator:
    """Two devices, of which one waits half of the time; remembers which graphs it was given at a time."""

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


class Terminated(Evaluator):
    """Is asked to stop while it evaluates."""

    def evaluate(self, graphs):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().evaluate(graphs)


def test_baselines_are_saved_after_each_share_of_the_devices_and_a_stop_comes_in_between(
    monkeypatch, tmp_path
):
    config, workdir = quick(), tmp_path / "run"

    def run(evaluator):
        monkeypatch.setattr(session, "make_evaluator", lambda *_: evaluator)
        done = session.run_search(config, str(workdir))
        layers = json.loads((workdir / "baselines.json").read_text())["layers"]
        return done, [layer["name"] for layer in layers], len(evaluator.calls)

    assert run(Terminated()) == (False, ["bn_relu", "gn_relu"], 1)
    assert not read_search(workdir).history
    assert run(Evaluator()) == (True, list(session.SEARCH_BASELINES), 1)
    search = read_search(workdir)
    assert search.finished and search.idle_share == 0.25
    assert run(Evaluator()) == (True, list(session.SEARCH_BASELINES), 0)
    assert read_search(workdir).idle_share == 0.25, "a run with nothing to do leaves it"
