"""Candidates screened per hour by the search and by plain JAX, as a user would write it.

  python -m experiments.benchmarks.screening --config=experiments/configs/search_mnist5k.py \\
      --workdir=runs/benchmarks/screening

The same candidates, random graphs and mutated EvoNorms, go through the tests of a search in two ways: with a
fresh `jit` for each candidate and anchor and all steps on all anchors (`plain_jax.py`), and as the search
does it. Plain JAX takes the better part of a minute for a candidate, so it screens only a sample, evenly
spaced over both kinds. The other candidates are assumed to take the mean time of the sample, inert candidates
and others apart. The two ways take turns round by round. The compilation cache is off for both: plain JAX
builds for every candidate, the search once, and the ratio is given with and without that.

The table switches the parts of the search on, one after the other. The first three rows follow from the times
of plain JAX. The fourth is measured on those of its candidates that are neither inert nor duplicates, the
last two on all candidates. Verdicts are compared one by one. Where a training is chaotic, rounding alone can
carry it over a threshold: such candidates are listed with both numbers.

On two CPU cores it takes a quarter of an hour with `--baseline_candidates=6`, most of it in plain JAX, and
longer by default. The goal is a hundred times the candidates per hour of plain JAX. Writes screening.json
into the work directory.

Two devices may gain little where few candidates of a round reach a stage: with one candidate at a stage, the
other device waits. A larger `evolution.round_size` helps then.
"""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags as absl_flags
from absl import logging
from ml_collections import ConfigDict
from rich.table import Table

from evonorms_jax.errors import UserError
from evonorms_jax.evolution import rejection
from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.executors import Job, Universal, share
from evonorms_jax.evolution.history import Evaluation, History
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.search_space import CATALOG, Graph
from experiments import flags
from experiments.benchmarks import results
from experiments.benchmarks.candidates import Pass, evenly, mutants, random_graphs, rounds
from experiments.benchmarks.plain_jax import Plain, Screening, examine, make_screening, without_early_end

_UNTRAINED = ("inert", "flat", "duplicate", "batch_dependent")

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    flags.define_config()
    flags.define_cpu_devices()
    absl_flags.DEFINE_integer("random", 200, "Number of random graphs.", lower_bound=0)
    absl_flags.DEFINE_integer("mutated", 100, "Number of EvoNorms mutated twice.", lower_bound=0)
    absl_flags.DEFINE_integer(
        "baseline_candidates", 12, "Number of candidates that plain JAX screens too.", lower_bound=1
    )
    text = "Build every program. --nocold uses the compilation cache, for trials."
    absl_flags.DEFINE_bool("cold", True, text)


def main(argv):
    """Measures, prints the tables, and writes the results."""
    del argv
    flags.use_cpu_devices(FLAGS.cpu_devices)
    jax.config.update("jax_enable_compilation_cache", not FLAGS.cold)
    measured = measure(FLAGS.config, FLAGS.random, FLAGS.mutated, FLAGS.baseline_candidates)
    shown = [parts_table(measured), *summary(measured)]
    if len(measured["compared"]) > measured["equal"]:
        shown.append(differences_table(measured))
    results.publish(FLAGS.workdir, "screening.json", measured, *shown)


# -- Measurements


def measure(config: ConfigDict, random: int, mutated: int, baseline: int) -> dict[str, Any]:
    """Screens candidates in both ways by turns.

    Args:
      config: config of a search.
      random: number of random graphs.
      mutated: number of EvoNorms mutated twice.
      baseline: number of candidates that plain JAX screens too.

    Returns:
      A JSON object with the content of the tables.

    Raises:
      ValueError: if there is no candidate, or the config has no tests.
    """
    if random + mutated < 1:
        raise UserError("there must be at least one candidate, got --random=0 --mutated=0")
    if not config.rejection.enabled:
        raise UserError("rejection.enabled must be true, because this benchmark measures the tests")
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
        "machine": results.machine(),
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


def _screening_only(config: ConfigDict) -> ConfigDict:
    """The search without the full training that follows the tests."""
    config = config.copy_and_resolve_references()
    config.proxy.steps = config.rejection.quality_steps
    config.executor = "universal"
    return config


def _take_turns(
    graphs: Sequence[Graph],
    turns: Sequence[Sequence[int]],
    chosen: Sequence[int],
    passes: Sequence[Pass],
    screening: Screening,
) -> dict[int, Plain]:
    """Screens all graphs in the passes and the chosen ones in plain JAX. Returns the latter verdicts."""
    plain: dict[int, Plain] = {}
    for places in turns:
        for each in passes:
            each.examine([graphs[place] for place in places])
        plain |= {place: examine(graphs[place], screening) for place in places if place in chosen}
        done = places[-1] + 1, len(graphs), len(plain), len(chosen)
        logging.info("%d of %d candidates, %d of %d by plain JAX", *done)
    return plain


def _means(seconds: Mapping[int, float], outcomes: Sequence[str]) -> tuple[float, float]:
    """Mean over inert candidates and mean over others. If one kind is missing, both are of the other."""
    inert = [value for place, value in seconds.items() if outcomes[place] == "inert"]
    other = [value for place, value in seconds.items() if outcomes[place] != "inert"]
    return statistics.mean(inert or other), statistics.mean(other or inert)


def _filter_seconds(graphs: Sequence[Graph]) -> float:
    started = time.monotonic()
    for graph in graphs:
        if not (rejection.inert(graph) or rejection.flat(graph)):
            rejection.fingerprint(graph)
    return time.monotonic() - started


def _universal_seconds(
    graphs: Sequence[Graph], config: ConfigDict, screening: Screening, device: Sequence[jax.Device]
) -> float:
    """Mean seconds of a graph in the universal program, with all steps on all anchors."""
    unlimited = config.copy_and_resolve_references()
    unlimited.rejection.stability_norm = float(np.finfo(np.float32).max)  # a config must be finite
    evaluator = make_evaluator(unlimited, devices=device)
    places = Devices(1, device)
    executors = []
    for anchor in screening.tasks:
        template = jax.jit(anchor.task.init)(anchor.task.encode(CATALOG["evonorm_b0"]), anchor.init_key)
        shared = share(anchor.data, [(anchor.train_key, template)])
        executors.append(Universal(without_early_end(anchor.task), places.replicate(shared), places))

    def run(graphs, steps):
        started = time.monotonic()
        evaluator.stability(graphs)
        for executor in executors:
            executor.train([Job(graph, steps) for graph in graphs])
        return time.monotonic() - started

    run(graphs[:1], 1)  # builds the programs
    return run(graphs, config.rejection.quality_steps) / len(graphs)


# -- Verdicts


def compared(place: int, graph: Graph, plain: Plain, history: History) -> dict[str, Any]:
    """Both verdicts on a candidate with their evidence. A duplicate has the verdict of its original."""
    ours = history[place].evaluation
    verdict = ours if ours.duplicate_of is None else history[ours.duplicate_of].evaluation
    return {
        "index": place,
        "equation": str(graph),
        "plain": plain._asdict() | {"seconds": plain.seconds},
        "ours": {"outcome": verdict.outcome, "evidence": verdict.evidence, "duplicate_of": ours.duplicate_of},
        "equal": same_verdict(plain.outcome, plain.evidence, verdict),
    }


def same_verdict(outcome: str, evidence: Mapping[str, Any], ours: Evaluation) -> bool:
    """Whether a verdict of plain JAX agrees with ours. An inert or flat candidate may fail any test."""
    if ours.outcome in ("inert", "flat"):
        return outcome != "accepted"
    return (outcome, evidence.get("anchor")) == (ours.outcome, ours.evidence.get("anchor"))


# -- Parts


class Times(NamedTuple):
    """Measured seconds.

    Attributes:
      plain_inert: mean seconds of an inert candidate in plain JAX.
      plain_other: mean seconds of any other candidate in plain JAX.
      filters: seconds to find the inert candidates and the duplicates among all candidates.
      universal: mean seconds of a candidate in the universal program on one device without early ends, or
        None if there was no candidate to measure.
      one_device: seconds of a search for all candidates on one device.
      devices: seconds of a search for all candidates on all devices.
    """

    plain_inert: float
    plain_other: float
    filters: float
    universal: float | None
    one_device: float
    devices: float


def parts(times: Times, examined: int, inert: int, trained: int) -> list[dict[str, Any]]:
    """Seconds of screening as its parts are switched on one after the other.

    Args:
      times: measured seconds.
      examined: number of candidates.
      inert: number of inert candidates.
      trained: number of candidates that pass all tests that need no training.
    """
    others = examined - inert
    universal = None if times.universal is None else times.filters + trained * times.universal
    steps = [
        ("plain JAX", "plain", inert * times.plain_inert + others * times.plain_other),
        ("+ inert skipped", "plain", times.filters + others * times.plain_other),
        ("+ duplicates skipped", "plain", times.filters + trained * times.plain_other),
        ("+ one program for all", "sample", universal),
        ("+ early ends", "all", times.one_device),
        ("+ all devices", "all", times.devices),
    ]
    rows: list[dict[str, Any]] = []
    for part, measured_on, seconds in steps:
        if seconds is not None:
            rows.append({
                "part": part,
                "measured_on": measured_on,
                "seconds": seconds,
                "per_hour": 3600 * examined / seconds,
                "gain": (rows[-1]["seconds"] if rows else seconds) / seconds,
                "ratio": (rows[0]["seconds"] if rows else seconds) / seconds,
            })  # fmt: skip
    return rows


# -- Tables


def parts_table(measured: Mapping[str, Any]) -> Table:
    """Candidates per hour as the parts are switched on."""
    counts, outcomes = measured["candidates"], measured["outcomes"]
    total = counts["random"] + counts["mutated"]
    shares = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    title = f"{counts['random']} random and {counts['mutated']} mutated candidates: {shares}"
    bases = {
        "plain": f"{counts['plain']} of {total}",
        "sample": f"{counts['sample']} of {total}",
        "all": f"all {total}",
    }
    table = Table("", "an hour", "x row above", "x plain JAX", "measured on", title=title)
    for row in measured["parts"]:
        cells = f"{row['per_hour']:,.0f}", f"{row['gain']:.2f}", f"{row['ratio']:.1f}"
        table.add_row(row["part"], *cells, bases[row["measured_on"]])
    return table


def summary(measured: Mapping[str, Any]) -> list[str]:
    """The ratio, also with builds and against plain JAX with an early end, and the agreement of verdicts."""
    plain, ours = measured["parts"][0]["seconds"], measured["parts"][-1]["seconds"]
    build = measured["build_seconds"]["devices"]
    early = measured["plain_ended_early_seconds"]
    devices = "the same on one device" if measured["same_on_one_device"] else "NOT the same on one device"
    return [
        f"{plain / ours:.1f} times plain JAX",
        f"{plain / (ours + build):.1f} times with the {build:.0f} s in which the search builds its programs",
        f"{early / ours:.1f} times plain JAX that ends at the first failed test",
        f"{measured['equal']} of {len(measured['compared'])} verdicts equal; ours are {devices}",
    ]


def differences_table(measured: Mapping[str, Any]) -> Table:
    """The candidates with different verdicts."""
    table = Table("candidate", "plain JAX", "ours", title="different verdicts")
    for row in measured["compared"]:
        if not row["equal"]:
            sides = [f"{side['outcome']} {side['evidence']}" for side in (row["plain"], row["ours"])]
            table.add_row(f"{row['index']}: {row['equation']}", *sides)
    return table


if __name__ == "__main__":
    define_flags()
    flags.run(main, example="experiments/configs/search_mnist5k.py", holds="workdir")
