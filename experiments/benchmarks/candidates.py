"""Candidates for the benchmarks of the search, and a timed pass of an evaluator over them."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from evonorms_jax.evolution.history import History, Proposal, Record
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.search_space import Graph, mutate, random_graph

# Its gradient is not finite at the first step, so it has the programs built and takes almost no time in them.
_HOPELESS = Graph.parse("exp(exp(exp(exp(square(x)))))")


def random_graphs(count: int, seed: int) -> list[Graph]:
    """The first `count` graphs of a fixed sequence of random graphs."""
    return [random_graph(_rng(seed, 0, index)) for index in range(count)]


def mutants(parents: Sequence[Graph], count: int, seed: int, mutations: int = 2) -> list[Graph]:
    """The first `count` children of a fixed sequence.

    Args:
      parents: graphs that take turns as the parent.
      count: number of children.
      seed: base seed of all mutations.
      mutations: number of mutations in a row, two as in a search.
    """
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
    """`count` evenly spaced indices below `total`, or all of them if `count` is larger."""
    count = min(count, total)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def rounds(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """The items in rounds of `size`. The last round may be smaller."""
    return [items[start : start + size] for start in range(0, len(items), size)]


class Pass:
    """An evaluator with its programs built, the history of its candidates, and the seconds of both.

    Args:
      config: config of a search.
      devices: devices of the evaluator, all local ones by default.

    Attributes:
      evaluator: the evaluator.
      history: records of the candidates examined.
      build_seconds: seconds for data and programs, before the first candidate.
      seconds: seconds for the candidates.
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
        """Examines a round as a search does."""
        started = time.monotonic()
        evaluations = self.evaluator.examine(graphs, self.history)
        self.seconds += time.monotonic() - started
        for graph, evaluation in zip(graphs, evaluations, strict=True):
            self.history.append(Record(len(self.history), Proposal(graph, "random"), evaluation))

    def verdicts(self) -> list[dict[str, Any]]:
        """All evaluations without their times, as JSON objects."""
        return [record.evaluation._replace(seconds=0.0).to_json() for record in self.history]
