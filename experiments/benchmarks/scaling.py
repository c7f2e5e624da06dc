"""Does the search find the same on any number of devices, and how much faster on more?

  python -m experiments.benchmarks.scaling --config=experiments/configs/search_mnist5k.py \\
      --workdir=runs/benchmarks/scaling

The same rounds of candidates, random graphs and mutated known layers by turns, on 1, 2, 4 and 8 devices: CPU
devices, or as many accelerators as there are. All evaluations must be equal but for their times; if not, the
exit status is 1. The counts take turns, round by round, and each starts one round in so many, so that
whatever else the machine does hits all of them. Idle is the share of the devices' time spent waiting for the
last one of a call. Building is not in the throughput; programs are built anew for each count unless the
compilation cache has them. A round must hold a candidate for each device, better several:
`--config.evolution.round_size`.

Two CPU cores, the default numbers: about 20 minutes. `--rounds=1` takes a fourth of the time that is not
building, and the `:quick` form of the config a minute or two in all. The goal there is 1.6 times the
throughput of one device with two; more devices than cores bring nothing and must cost little. Writes
scaling.json into the work directory.
"""

from absl import flags as absl_flags
from rich.console import Console

from evonorms_jax.errors import UserError
from experiments import flags
from experiments.benchmarks.candidates import headline, write_figures
from experiments.benchmarks.scaling_figures import check_same, measure, scaling_table

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
    check_same(figures)


def _counts(values):
    for value in values:
        if not value.isdecimal() or not int(value):
            raise UserError(f"--device_counts takes whole numbers above 0, got {value!r}")
    return [int(value) for value in values]


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/search_mnist5k.py", holds=WORKDIR)
