"""How many candidates an hour does the search screen, beside what a user of JAX would write?

  python -m experiments.benchmarks.screening --config=experiments/configs/search_mnist5k.py \\
      --workdir=runs/benchmarks/screening

The same candidates, random graphs and mutated EvoNorms, go through the tests of a search in two ways: with a
fresh `jit` for each candidate and anchor and all steps on all anchors (`plain_jax.py`), and as the search
does it. Plain JAX takes the better part of a minute a candidate, so it screens some of them only, evenly
spaced over both kinds; for the rest it is taken to need as long as for these, inert candidates and others
apart. The two take turns, round by round. The compilation cache is off for both: plain JAX builds for every
candidate, the search once, and the ratio is given with and without that.

The table switches the parts of the search on, one after the other. The first three rows come from the times
of plain JAX; the fourth is measured on those of its candidates that are neither inert nor duplicates; the
last two are measured on all candidates. Verdicts are compared one by one. Where a training is chaotic,
rounding alone can carry it over a threshold: such candidates are listed with both figures.

Two CPU cores: a quarter of an hour with `--baseline_candidates=6`, most of it plain JAX; longer by default.
The goal is thirty times its candidates an hour. Writes screening.json into the work directory.
"""

import jax
from absl import flags as absl_flags
from rich.console import Console
from rich.table import Table

from experiments import flags
from experiments.benchmarks.candidates import headline, write_figures
from experiments.benchmarks.screening_figures import measure

CONFIG, WORKDIR = flags.define_config()
CPU_DEVICES = flags.define_cpu_devices()
RANDOM = absl_flags.DEFINE_integer("random", 200, "Number of random graphs.", lower_bound=0)
MUTATED = absl_flags.DEFINE_integer("mutated", 100, "Number of EvoNorms mutated twice.", lower_bound=0)
BASELINE = absl_flags.DEFINE_integer(
    "baseline_candidates", 12, "How many of them are also screened by plain JAX.", lower_bound=1
)
COLD = absl_flags.DEFINE_bool(
    "cold", True, "Builds every program; --nocold takes them from the compilation cache, to try things out."
)


def main(argv):
    """Measures, prints the tables, and writes the figures."""
    del argv
    flags.use_cpu_devices(CPU_DEVICES.value)
    jax.config.update("jax_enable_compilation_cache", not COLD.value)
    figures = measure(CONFIG.value, RANDOM.value, MUTATED.value, BASELINE.value)
    console = Console()
    console.print(headline(figures["machine"]), highlight=False)
    console.print(parts_table(figures))
    console.print("\n".join(summary(figures)), highlight=False, soft_wrap=True)
    if len(figures["compared"]) > figures["equal"]:
        console.print(differences_table(figures))
    print(f"written to {write_figures(WORKDIR.value, 'screening.json', figures)}")


def parts_table(figures):
    """What each part brings."""
    counts, outcomes = figures["candidates"], figures["outcomes"]
    total = counts["random"] + counts["mutated"]
    shares = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    title = f"{counts['random']} random and {counts['mutated']} mutated candidates: {shares}"
    measured = {
        "plain": f"{counts['plain']} of {total}",
        "sample": f"{counts['sample']} of {total}",
        "all": f"all {total}",
    }
    table = Table("", "an hour", "x row above", "x plain JAX", "measured on", title=title)
    for row in figures["parts"]:
        cells = f"{row['per_hour']:,.0f}", f"{row['gain']:.2f}", f"{row['ratio']:.1f}"
        table.add_row(row["part"], *cells, measured[row["measured_on"]])
    return table


def summary(figures):
    """The ratio with what has to be added to it, and how the verdicts compare."""
    plain, ours = figures["parts"][0]["seconds"], figures["parts"][-1]["seconds"]
    build = figures["build_seconds"]["devices"]
    early = figures["plain_ended_early_seconds"]
    devices = "the same on one device" if figures["same_on_one_device"] else "NOT the same on one device"
    return [
        f"{plain / ours:.1f} times plain JAX",
        f"{plain / (ours + build):.1f} times with the {build:.0f} s in which the search builds its programs",
        f"{early / ours:.1f} times plain JAX that ends at the first failed test",
        f"{figures['equal']} of {len(figures['compared'])} verdicts equal; ours are {devices}",
    ]


def differences_table(figures):
    """The candidates with different verdicts."""
    table = Table("candidate", "plain JAX", "ours", title="different verdicts")
    for row in figures["compared"]:
        if not row["equal"]:
            sides = [f"{side['outcome']} {side['figure']}" for side in (row["plain"], row["ours"])]
            table.add_row(f"{row['index']}: {row['equation']}", *sides)
    return table


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/search_mnist5k.py", holds=WORKDIR)
