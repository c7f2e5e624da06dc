"""Does the search find the same on any number of devices, and how much faster on more?

  python -m experiments.benchmarks.scaling --config=experiments/configs/search_mnist5k.py \\
      --workdir=runs/benchmarks/scaling

The same rounds of candidates, random graphs and mutated known layers by turns, on 1, 2, 4 and 8 devices: CPU
devices, or as many accelerators as there are. All evaluations must be equal but for their times. The counts
take turns, round by round, and each starts one round in so many, so that whatever else the machine does hits
all of them. Idle is the share of the devices' time spent waiting for the last one of a call. Building is not
in the throughput; programs are built anew for each count unless the compilation cache has them.

Two CPU cores, the default numbers: about 20 minutes. The goal there is 1.6 times the throughput of one device
with two; more devices than cores bring nothing and must cost little. Writes scaling.json into the work
directory.
"""

import json

import jax
from absl import flags as absl_flags
from absl import logging
from rich.console import Console
from rich.table import Table

from evonorms_jax.evolution.session import KNOWN_LAYERS
from experiments import flags
from experiments.benchmarks.candidates import (
    Pass,
    headline,
    machine,
    mutants,
    random_graphs,
    rounds,
    write_figures,
)

CONFIG, WORKDIR = flags.define_config()
COUNTS = absl_flags.DEFINE_list("device_counts", "1,2,4,8", "Numbers of devices, the first to compare with.")
ROUNDS = absl_flags.DEFINE_integer("rounds", 4, "Rounds of config.evolution.round_size.", lower_bound=1)


def main(argv):
    """Measures, prints the table, and writes the figures."""
    del argv
    counts = _counts(COUNTS.value)
    flags.use_cpu_devices(max(counts))
    figures = measure(CONFIG.value, counts, ROUNDS.value)
    console = Console()
    console.print(headline(figures["machine"]), highlight=False)
    console.print(scaling_table(figures))
    print(f"written to {write_figures(WORKDIR.value, 'scaling.json', figures)}")


def measure(config, counts, number_of_rounds):
    """Examines the same rounds on each number of devices.

    Raises:
      ValueError: if there are fewer devices than the first count.
    """
    config = config.copy_and_resolve_references()
    config.executor = "universal"  # auto chooses by measured times, and these differ
    available = jax.local_devices()
    usable = [count for count in counts if count <= len(available)]
    if counts[0] not in usable:
        raise ValueError(f"--device_counts starts with {counts[0]}, there are {len(available)} devices")
    size = config.evolution.round_size
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


def scaling_table(figures):
    """Throughput by number of devices."""
    shares = ", ".join(f"{count} {outcome}" for outcome, count in figures["outcomes"].items())
    title = f"{figures['candidates']} candidates: {shares}"
    table = Table("devices", "an hour", "x the first", "idle", "build", "same evaluations", title=title)
    for row in figures["rows"]:
        throughput = f"{row['per_hour']:,.0f}", f"{row['ratio']:.2f}"
        times = f"{100 * row['idle_share']:.0f} %", f"{row['build_seconds']:.0f} s"
        table.add_row(str(row["devices"]), *throughput, *times, "yes" if row["same"] else "NO")
    return table


def _counts(values):
    for value in values:
        if not value.isdecimal() or not int(value):
            raise ValueError(f"--device_counts takes whole numbers above 0, got {value!r}")
    return [int(value) for value in values]


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/search_mnist5k.py")
