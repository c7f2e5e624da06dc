"""Measures screening beside what a user of JAX would write: the figures of `screening.py`."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.evolution import rejection
from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.executors import Job, Shared, Universal
from evonorms_jax.evolution.history import Evaluation, History
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.search_space import CATALOG, Graph
from evonorms_jax.search_space.encoding import encode
from experiments.benchmarks.candidates import Pass, evenly, machine, mutants, random_graphs, rounds
from experiments.benchmarks.plain_jax import Plain, Screening, examine, make_screening, without_early_end
from experiments.benchmarks.screening_parts import Times, parts

_UNTRAINED = ("inert", "duplicate", "batch_dependent")


def measure(config: ConfigDict, random: int, mutated: int, baseline: int) -> dict[str, Any]:
    """Screens candidates both ways, in turns.

    Args:
      config: of a search.
      random: number of random graphs.
      mutated: number of EvoNorms mutated twice.
      baseline: how many of them all are also screened by plain JAX.

    Returns:
      A JSON object, see `screening.py`.

    Raises:
      ValueError: if there is no candidate, or the config has no tests.
    """
    if random + mutated < 1:
        raise UserError("there must be at least one candidate, got --random=0 --mutated=0")
    if not config.rejection.enabled:
        raise UserError("rejection.enabled must be true: the tests are what is measured")
    config = _screening_only(config)
    graphs = random_graphs(random, config.seed) + mutants(list(CATALOG.values()), mutated, config.seed)
    first = jax.local_devices()[:1]
    logging.info("building the programs, on one device and on all")
    one, every = Pass(config, first), Pass(config)
    screening = make_screening(config, every.evaluator.anchors)
    turns = rounds(range(len(graphs)), config.evolution.round_size)
    plain = _take_turns(graphs, turns, evenly(baseline, len(graphs)), (one, every), screening)
    outcomes = [record.evaluation.outcome for record in every.history]
    inert, trained = outcomes.count("inert"), sum(outcome not in _UNTRAINED for outcome in outcomes)
    sample = [graphs[place] for place in plain if outcomes[place] not in _UNTRAINED]
    times = Times(
        *_means({place: verdict.seconds for place, verdict in plain.items()}, outcomes),
        filters=_filter_seconds(graphs),
        universal=_universal_seconds(sample, config, screening, first) if sample else None,
        one_device=one.seconds,
        devices=every.seconds,
    )
    early = _means({place: verdict.seconds_to_verdict for place, verdict in plain.items()}, outcomes)
    rows = [compared(place, graphs[place], plain[place], every.history) for place in plain]
    return {
        "machine": machine(),
        "config": config.to_dict(),
        "candidates": {"random": random, "mutated": mutated, "plain": len(plain), "sample": len(sample)},
        "outcomes": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "times": times._asdict(),
        "build_seconds": {"one_device": one.build_seconds, "devices": every.build_seconds},
        "parts": parts(times, len(graphs), inert, trained),
        "plain_ended_early_seconds": inert * early[0] + (len(graphs) - inert) * early[1],
        "same_on_one_device": json.dumps(one.verdicts()) == json.dumps(every.verdicts()),
        "equal": sum(row["equal"] for row in rows),
        "compared": rows,
    }


def _take_turns(
    graphs: Sequence[Graph],
    turns: Sequence[Sequence[int]],
    chosen: Sequence[int],
    passes: Sequence[Pass],
    screening: Screening,
) -> dict[int, Plain]:
    """Examines all graphs in the passes, and those at the chosen places by plain JAX, which it returns."""
    plain: dict[int, Plain] = {}
    for places in turns:
        for each in passes:
            each.examine([graphs[place] for place in places])
        plain |= {place: examine(graphs[place], screening) for place in places if place in chosen}
        done = places[-1] + 1, len(graphs), len(plain), len(chosen)
        logging.info("%d of %d candidates, %d of %d by plain JAX", *done)
    return plain


def _means(seconds: Mapping[int, float], outcomes: Sequence[str]) -> tuple[float, float]:
    """The means over inert candidates and over all others; where there are none, of the others."""
    inert = [value for place, value in seconds.items() if outcomes[place] == "inert"]
    other = [value for place, value in seconds.items() if outcomes[place] != "inert"]
    return statistics.mean(inert or other), statistics.mean(other or inert)


def compared(place: int, graph: Graph, plain: Plain, history: History) -> dict[str, Any]:
    """Both verdicts on a candidate, with their figures; a duplicate has the verdict of its original."""
    ours = history[place].evaluation
    verdict = ours if ours.duplicate_of is None else history[ours.duplicate_of].evaluation
    return {
        "index": place,
        "equation": str(graph),
        "plain": plain._asdict() | {"seconds": plain.seconds},
        "ours": {"outcome": verdict.outcome, "figure": verdict.figure, "duplicate_of": ours.duplicate_of},
        "equal": same_verdict(plain.outcome, plain.figure, verdict),
    }


def same_verdict(outcome: str, figure: Mapping[str, Any], ours: Evaluation) -> bool:
    """Whether a verdict of plain JAX is ours: an inert candidate is rejected, in whatever way."""
    if ours.outcome == "inert":
        return outcome != "accepted"
    return (outcome, figure.get("anchor")) == (ours.outcome, ours.figure.get("anchor"))


def _screening_only(config: ConfigDict) -> ConfigDict:
    """The search without what follows the tests."""
    config = config.copy_and_resolve_references()
    config.proxy.steps = config.rejection.quality_steps
    config.executor = "universal"
    return config


def _filter_seconds(graphs: Sequence[Graph]) -> float:
    started = time.monotonic()
    for graph in graphs:
        if not rejection.inert(graph):
            rejection.fingerprint(graph)
    return time.monotonic() - started


def _universal_seconds(
    graphs: Sequence[Graph], config: ConfigDict, screening: Screening, device: Sequence[jax.Device]
) -> float:
    """Seconds that one of the graphs takes in the universal program, with all steps on all anchors."""
    unlimited = config.copy_and_resolve_references()
    unlimited.rejection.stability_norm = float("inf")
    evaluator = make_evaluator(unlimited, devices=device)
    places = Devices(1, device)
    executors = []
    for anchor in screening.tasks:
        template = jax.jit(anchor.task.init)(encode(CATALOG["evonorm_b0"]), anchor.init_key)
        shared = Shared(anchor.data, anchor.train_key, template)
        executors.append(Universal(without_early_end(anchor.task), places.replicate(shared), places))

    def run(graphs, steps):
        started = time.monotonic()
        evaluator.stability(graphs)
        for executor in executors:
            executor.train([Job(graph, steps) for graph in graphs])
        return time.monotonic() - started

    run(graphs[:1], 1)  # builds the programs
    return run(graphs, config.rejection.quality_steps) / len(graphs)
