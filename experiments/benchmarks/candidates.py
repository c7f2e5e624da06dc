"""What the benchmarks of the search share: candidates, a timed pass over them, and the file of figures."""

import datetime
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.evolution.history import History, Proposal, Record
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.runs.files import absolute, write_whole
from evonorms_jax.search_space import Graph, mutate, random_graph
from experiments.flags import cores

# Its gradient is not finite from the first step on: it makes the programs be built and costs no time in them.
_HOPELESS = Graph.parse("exp(exp(exp(exp(square(x)))))")


def random_graphs(count: int, seed: int) -> list[Graph]:
    """Random graphs of the search space."""
    return [random_graph(_rng(seed, 0, index)) for index in range(count)]


def mutants(parents: Sequence[Graph], count: int, seed: int, mutations: int = 2) -> list[Graph]:
    """The parents in turn, each mutated so many times in a row; two are what the search makes of a parent."""
    children = []
    for index in range(count):
        rng = _rng(seed, 1, index)
        child = parents[index % len(parents)]
        for _ in range(mutations):
            child = mutate(rng, child)
        children.append(child)
    return children


def _rng(seed: int, kind: int, index: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, kind, index]))


def evenly(count: int, total: int) -> list[int]:
    """So many indices below the total, evenly spaced; all of them if there are no more."""
    count = min(count, total)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def rounds(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """The items in rounds of the given size; the last may be smaller."""
    return [items[start : start + size] for start in range(0, len(items), size)]


class Pass:
    """An evaluator with its programs built, what it has examined, and how long both took.

    Args:
      config: of a search.
      devices: where it runs; all local ones by default.

    Attributes:
      build_seconds: for data and programs, before the first candidate.
      seconds: for the candidates.
    """

    def __init__(self, config: ConfigDict, devices: Sequence[jax.Device] | None = None):
        started = time.monotonic()
        self.evaluator = make_evaluator(config, devices=devices)
        one_each = [_HOPELESS] * len(self.evaluator.devices.devices)
        self.evaluator.stability(one_each)
        self.evaluator.learning_curves(one_each, [1])
        self.build_seconds = time.monotonic() - started
        self.seconds = 0.0
        self.history = History()

    def examine(self, graphs: Sequence[Graph]) -> None:
        """Examines a round, as a search does."""
        started = time.monotonic()
        evaluations = self.evaluator.examine(graphs, self.history)
        self.seconds += time.monotonic() - started
        for graph, evaluation in zip(graphs, evaluations, strict=True):
            self.history.append(Record(len(self.history), Proposal(graph, "random"), evaluation))

    def verdicts(self) -> list[dict[str, Any]]:
        """All evaluations without their times, as JSON objects."""
        return [record.evaluation._replace(seconds=0.0).to_json() for record in self.history]


def machine() -> dict[str, Any]:
    """What the figures were measured on, and when."""
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "devices": jax.local_device_count(),
        "cores": cores(),
        "jax": jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def headline(figures: Mapping[str, Any]) -> str:
    """One line of `machine()`."""
    counts = f"{figures['cores']} cores, {figures['devices']} devices of JAX"
    return f"{figures['device']}, {counts} {figures['jax']}, {figures['date']}"


def write_figures(workdir: str, name: str, figures: Mapping[str, Any]) -> epath.Path:
    """Writes `name` into the work directory, which is made if need be."""
    path = absolute(workdir)
    path.mkdir(parents=True, exist_ok=True)
    write_whole(path / name, json.dumps(figures, indent=1) + "\n")
    return path / name
