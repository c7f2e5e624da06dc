"""Compares the evaluations and the throughput of a search on several numbers of devices.

  python -m experiments.benchmarks.scaling --config=experiments/configs/search_mnist5k.py \\
      --workdir=runs/benchmarks/scaling

The same rounds of candidates, alternately a random graph and a mutated known layer, run on 1, 2, 4 and 8
devices: CPU devices, or the accelerators of the machine. All evaluations must be equal except for their
times. Otherwise the exit status is 1. The numbers of devices take turns round by round, and the turn begins
with another number each time, so that other load on the machine affects all of them. Idle is the share of
device time spent waiting for the last device of a call. The throughput excludes the builds. Each number of
devices builds its own programs unless the compilation cache has them. A round must hold at least one
candidate for each device, better several (`--config.evolution.round_size`).

On two CPU cores the default takes about 20 minutes. `--rounds=1` runs a quarter of the candidates, and the
`:quick` form of the config ends in one or two minutes. The goal on two cores is 1.6 times the throughput of
one device with two. More devices than cores cannot be faster and should cost little. Writes scaling.json into
the work directory.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import flags as absl_flags
from absl import logging
from ml_collections import ConfigDict
from rich.table import Table

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.session import search_baselines
from experiments import flags
from experiments.benchmarks import results
from experiments.benchmarks.candidates import Pass, mutants, random_graphs, rounds

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    flags.define_config()
    absl_flags.DEFINE_list("device_counts", "1,2,4,8", "Numbers of devices. The first is the reference.")
    absl_flags.DEFINE_integer(
        "rounds", 4, "Number of rounds of config.evolution.round_size candidates.", lower_bound=1
    )


def main(argv):
    """Measures, prints the table, and writes the results."""
    del argv
    counts = flags.whole_numbers("device_counts", FLAGS.device_counts)
    flags.use_cpu_devices(max(counts))
    measured = measure(FLAGS.config, counts, FLAGS.rounds)
    results.publish(FLAGS.workdir, "scaling.json", measured, table(measured))
    check_same(measured)


def usable_counts(counts: Sequence[int], available: int, round_size: int) -> list[int]:
    """The counts for which the machine has enough devices. A warning names the others.

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
    """Examines the same rounds on each number of devices and returns a JSON object.

    Raises:
      ValueError: if the devices or the round size do not fit, see `usable_counts`.
    """
    config = config.copy_and_resolve_references()
    config.executor = "universal"  # "auto" decides by measured times, which differ between runs
    available = jax.local_devices()
    size = config.evolution.round_size
    usable = usable_counts(counts, len(available), size)
    graphs = _candidates(size * number_of_rounds, config)
    passes = {}
    for count in usable:
        logging.info("building the programs for %d devices", count)
        passes[count] = Pass(config, available[:count])
    for number, batch in enumerate(rounds(graphs, size)):
        first = number % len(usable)
        for count in usable[first:] + usable[:first]:
            passes[count].examine(batch)
        logging.info("round %d of %d", number + 1, number_of_rounds)
    outcomes = [verdict["outcome"] for verdict in passes[usable[0]].verdicts()]
    return {
        "machine": results.machine(),
        "config": config.to_dict(),
        "candidates": len(graphs),
        "outcomes": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "rows": _rows(passes, len(graphs)),
    }


def _candidates(total: int, config: ConfigDict):
    """Random graphs and mutated baselines by turns."""
    known = list(search_baselines(config).values())
    children = mutants(known, total - total // 2, config.seed, mutations=1)
    pairs = zip(random_graphs(len(children), config.seed), children, strict=True)
    return [graph for pair in pairs for graph in pair][:total]


def _rows(passes: Mapping[int, Pass], total: int) -> list[dict[str, Any]]:
    reference = next(iter(passes.values()))
    return [
        {
            "devices": count,
            "seconds": each.seconds,
            "per_hour": 3600 * total / each.seconds,
            "ratio": reference.seconds / each.seconds,
            "idle_share": each.evaluator.devices.idle_share,
            "build_seconds": each.build_seconds,
            # Compared as text, because NaN does not equal itself.
            "same": json.dumps(each.verdicts()) == json.dumps(reference.verdicts()),
        }
        for count, each in passes.items()
    ]


def table(measured: Mapping[str, Any]) -> Table:
    """Throughput by number of devices."""
    shares = ", ".join(f"{count} {outcome}" for outcome, count in measured["outcomes"].items())
    title = f"{measured['candidates']} candidates: {shares}"
    shown = Table("devices", "an hour", "x the first", "idle", "build", "same evaluations", title=title)
    for row in measured["rows"]:
        throughput = f"{row['per_hour']:,.0f}", f"{row['ratio']:.2f}"
        times = f"{100 * row['idle_share']:.0f} %", f"{row['build_seconds']:.0f} s"
        shown.add_row(str(row["devices"]), *throughput, *times, "yes" if row["same"] else "NO")
    return shown


def check_same(measured: Mapping[str, Any]) -> None:
    """Ends the process with one line and exit status 1 if evaluations differ between numbers of devices."""
    first, *_ = (row["devices"] for row in measured["rows"])
    if different := [str(row["devices"]) for row in measured["rows"] if not row["same"]]:
        raise SystemExit(f"error: evaluations on {', '.join(different)} devices differ from those on {first}")


if __name__ == "__main__":
    define_flags()
    flags.run(main, example="experiments/configs/search_mnist5k.py", holds="workdir")
