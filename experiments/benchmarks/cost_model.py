"""What would the paper's full search take on this machine, a GPU, a slice of a TPU pod?

  python -m experiments.benchmarks.cost_model --config=experiments/configs/search_cifar10_b.py \\
      --workdir=runs/benchmarks/cost_model --history=runs/mnist5k

Measured here: the time of training steps on the anchors of the config, by the universal program and by one
made for a candidate, and how long that takes to build. What becomes of candidates, and after how many steps
they are rejected, comes from the history of a search (`--history`), or from candidates that are examined here
with the default search. From that the cost of an average candidate follows (`search_cost.py`), and how many
candidates the paper's budget pays for: 5,000 workers of two cores for two days. Everything that is assumed is
printed; prices and sustained speeds are flags.

On a machine with a GPU, its figures are measured. To have CPU and GPU in one table, run it on both, and give
one the figures of the other: `--measured=OTHER/cost_model.json`. On two CPU cores 10 to 15 minutes for the
paper's anchors, images being made up. Writes cost_model.json into the work directory.
"""

import json

import jax
from absl import flags as absl_flags
from absl import logging
from rich.console import Console
from rich.table import Table

from evonorms_jax.errors import UserError
from evonorms_jax.runs.files import absolute
from experiments import flags
from experiments.benchmarks.candidates import headline, machine, write_figures
from experiments.benchmarks.cost_figures import measure_anchors, mix_of_sample, mix_of_search
from experiments.benchmarks.cost_machines import Assumed, model
from experiments.benchmarks.search_cost import PAPER_CORE_HOURS, Protocol

CONFIG, WORKDIR = flags.define_config()
CPU_DEVICES = flags.define_cpu_devices()
HISTORY = absl_flags.DEFINE_string("history", None, "Work directory of a search: what becomes of candidates.")
SAMPLE = absl_flags.DEFINE_integer(
    "sample", 100, "Without --history: candidates that are examined here.", lower_bound=1
)
STEPS = absl_flags.DEFINE_integer("measure_steps", 5, "Training steps that are timed.", lower_bound=1)
COLD = absl_flags.DEFINE_bool(
    "cold", True, "Builds every program; --nocold takes them from the compilation cache, to try things out."
)
MEASURED = absl_flags.DEFINE_multi_string("measured", [], "A cost_model.json of another machine.")


def _assumption(name, value, text):
    return absl_flags.DEFINE_float(name, value, f"Assumption: {text}.", lower_bound=0)


ASSUMED = Assumed(
    core_price=_assumption("core_price", 0.05, "dollars an hour for a CPU core"),
    gpu_price=_assumption("gpu_price", 4.0, "dollars an hour for a GPU"),
    gpu_tflops=_assumption("gpu_tflops", 67.0, "peak of a GPU in float32, TFLOP/s"),
    gpu_share=_assumption("gpu_share", 0.05, "share of that peak which a compiled step sustains"),
    tpu_price=_assumption("tpu_price", 1.2, "dollars an hour for a TPU v5e chip"),
    tpu_tflops=_assumption("tpu_tflops", 197.0, "peak of a TPU v5e chip in bfloat16, TFLOP/s"),
    tpu_share=_assumption("tpu_share", 0.02, "share of that peak which a compiled step sustains"),
)


def main(argv):
    """Measures, prints the tables and the assumptions, and writes the figures."""
    del argv
    flags.use_cpu_devices(CPU_DEVICES.value)
    jax.config.update("jax_enable_compilation_cache", not COLD.value)
    config = CONFIG.value
    others = [_read(path) for path in MEASURED.value]
    _check(config, others)
    mix = mix_of_search(HISTORY.value) if HISTORY.value else mix_of_sample(SAMPLE.value)
    logging.info("measuring steps and builds on %s", ", ".join(config.anchors))
    here = {"machine": machine(), "anchors": [a._asdict() for a in measure_anchors(config, STEPS.value)]}
    protocol = Protocol(config.proxy.steps, config.rejection.stability_batch_size / config.proxy.batch_size)
    assumed = Assumed(*(flag.value for flag in ASSUMED))
    figures = here | model([here, *others], mix, protocol, config.budget, assumed)
    console = Console()
    console.print(headline(figures["machine"]), highlight=False)
    console.print(anchor_table(figures))
    console.print(mix_line(figures), highlight=False, soft_wrap=True)
    console.print(machine_table(figures))
    for number, assumption in enumerate(figures["assumptions"], 1):
        console.print(f"assumption {number}: {assumption}", highlight=False, soft_wrap=True)
    print(f"written to {write_figures(WORKDIR.value, 'cost_model.json', figures)}")


def anchor_table(figures):
    """What was measured on the anchors."""
    columns = ("GFLOP a step", "universal, s a step", "compiled, s a step", "build, s")
    columns += ("full trainings an hour: universal", "compiled, with builds")
    table = Table("anchor", *columns, title="measured here, on one device with all busy")
    for anchor in figures["anchors"]:
        times = (anchor["universal"], anchor["compiled"])
        cells = (f"{anchor['operations'] / 1e9:.3g}", *(f"{time:.3g}" for time in times))
        per_hour = (f"{rate:,.3g}" for rate in figures["trainings_per_hour"][anchor["name"]])
        table.add_row(anchor["name"], *cells, f"{anchor['build']:.0f}", *per_hour)
    return table


def mix_line(figures):
    """What becomes of candidates, and what a full training takes."""
    mix, count = figures["mix"], figures["candidates"]["paper"]
    paper = "unknown, no CPU is measured" if count is None else f"{count:,.0f}"
    untrained, rejected, trained = (100 * mix[key] for key in ("untrained", "rejected", "trained"))
    return (
        f"of {mix['examined']} candidates {untrained:.0f} % are not trained, {rejected:.0f} % are rejected "
        f"while trained, {trained:.1f} % are trained in full\n"
        f"operations of a full training: {figures['operations_per_training']:.2g}\n"
        f"the paper's budget, 5,000 workers of two cores for two days: {PAPER_CORE_HOURS:,} hours of a core, "
        f"${PAPER_CORE_HOURS * figures['assumed']['core_price']:,.0f}\n"
        f"candidates that it pays for: {paper}"
    )


def machine_table(figures):
    """Hours and dollars by machine."""
    budget = figures["candidates"]["config"]
    columns = ("device s a candidate", f"{budget:,} candidates", "the paper's budget")
    table = Table("machine", "figures", *columns)
    for row in figures["rows"]:
        each = sum(row["device_seconds"].values())
        prices = [
            "-" if row["hours"][key] is None else f"{row['hours'][key]:,.1f} h, ${row['dollars'][key]:,.0f}"
            for key in ("config", "paper")
        ]
        table.add_row(row["machine"], row["basis"], f"{each:,.2f}", *prices)
    return table


def _read(path):
    try:
        figures = json.loads(absolute(path).read_text())
        return {"machine": figures["machine"], "anchors": figures["anchors"]}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"--measured={path} is no cost_model.json: {error!r}") from None


def _check(config, others):
    platforms = [jax.default_backend(), *(figures["machine"]["platform"] for figures in others)]
    if len(set(platforms)) < len(platforms):
        raise UserError(f"--measured must be of other platforms than this one, got {', '.join(platforms)}")
    for figures in others:
        names = [anchor["name"] for anchor in figures["anchors"]]
        if set(names) != set(config.anchors):
            raise UserError(f"--measured must be of {', '.join(config.anchors)}, got {', '.join(names)}")


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/search_cifar10_b.py", holds=WORKDIR)
