"""Examines the same rounds on several numbers of devices: what `scaling.py` prints."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict
from rich.table import Table

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.session import KNOWN_LAYERS
from experiments.benchmarks.candidates import Pass, machine, mutants, random_graphs, rounds


def usable_counts(counts: Sequence[int], available: int, round_size: int) -> list[int]:
    """The counts that there are devices for; a warning names the others.

    Raises:
      ValueError: if there are fewer devices than the first count, or fewer candidates in a round than
        devices.
    """
    usable = [count for count in counts if count <= available]
    if counts[0] not in usable:
        raise UserError(f"--device_counts starts with {counts[0]}, there are {available} devices")
    if dropped := [str(count) for count in counts if count not in usable]:
        logging.warning("not measured: %s devices, there are %d", ", ".join(dropped), available)
    if max(usable) > round_size:
        raise UserError(
            f"config.evolution.round_size must be at least {max(usable)}, a candidate for each device, "
            f"got {round_size}"
        )
    return usable


def measure(config: ConfigDict, counts: Sequence[int], number_of_rounds: int) -> dict[str, Any]:
    """Examines the same rounds on each number of devices; errors as `usable_counts`."""
    config = config.copy_and_resolve_references()
    config.executor = "universal"  # auto chooses by measured times, and these differ
    available = jax.local_devices()
    size = config.evolution.round_size
    usable = usable_counts(counts, len(available), size)
    total = size * number_of_rounds
    children = mutants(list(KNOWN_LAYERS.values()), total - total // 2, config.seed, mutations=1)
    pairs = zip(random_graphs(len(children), config.seed), children, strict=True)
    graphs = [graph for pair in pairs for graph in pair][:total]
    passes = {}
    for count in usable:
        logging.info("building the programs for %d devices", count)
        passes[count] = Pass(config, available[:count])
    for number, batch in enumerate(rounds(graphs, size)):
        first = number % len(usable)
        for count in usable[first:] + usable[:first]:
            passes[count].examine(batch)
        logging.info("round %d of %d", number + 1, number_of_rounds)
    reference = passes[usable[0]]
    outcomes = [verdict["outcome"] for verdict in reference.verdicts()]
    rows = [
        {
            "devices": count,
            "seconds": each.seconds,
            "per_hour": 3600 * total / each.seconds,
            "ratio": reference.seconds / each.seconds,
            "idle_share": each.evaluator.devices.idle_share,
            "build_seconds": each.build_seconds,
            # As text: a figure that is not a number is not equal to itself.
            "same": json.dumps(each.verdicts()) == json.dumps(reference.verdicts()),
        }
        for count, each in passes.items()
    ]
    return {
        "machine": machine(),
        "config": config.to_dict(),
        "candidates": total,
        "outcomes": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "rows": rows,
    }


def scaling_table(figures: Mapping[str, Any]) -> Table:
    """Throughput by number of devices."""
    shares = ", ".join(f"{count} {outcome}" for outcome, count in figures["outcomes"].items())
    title = f"{figures['candidates']} candidates: {shares}"
    table = Table("devices", "an hour", "x the first", "idle", "build", "same evaluations", title=title)
    for row in figures["rows"]:
        throughput = f"{row['per_hour']:,.0f}", f"{row['ratio']:.2f}"
        times = f"{100 * row['idle_share']:.0f} %", f"{row['build_seconds']:.0f} s"
        table.add_row(str(row["devices"]), *throughput, *times, "yes" if row["same"] else "NO")
    return table


def check_same(figures: Mapping[str, Any]) -> None:
    """Ends the process with one line, exit status 1, if evaluations differ between numbers of devices."""
    first, *_ = (row["devices"] for row in figures["rows"])
    if different := [str(row["devices"]) for row in figures["rows"] if not row["same"]]:
        raise SystemExit(f"error: evaluations on {', '.join(different)} devices differ from those on {first}")
