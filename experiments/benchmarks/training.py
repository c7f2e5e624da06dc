"""Images a second of a full-size network with different layers in one run, and the share of a device's peak.

  python -m experiments.benchmarks.training --workdir=runs/benchmarks/training --peak_tflops=990
  python -m experiments.benchmarks.training --workdir=runs/benchmarks/training --model=mobilenet_v2 \\
      --batch_size=32 --image_size=96 --steps=2

Whole training steps of `experiments/train.py` on made-up images that lie on the device, with the 1,000
classes and 3 channels of ImageNet: what a network can take, whatever the reading of pictures gives. The
layers take turns, round by round; the median of the rounds is reported. Operations are those of the traced
step as XLA counts them, before it fuses any. The default batch is for an accelerator of 80 GB. Writes
training.json into the work directory.
"""

import statistics
import time
from typing import Any

import jax
from absl import flags as absl_flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from evonorms_jax.models.networks import operations
from evonorms_jax.training.task import Task, build_task
from experiments import flags
from experiments.benchmarks.candidates import headline, machine, write_figures
from experiments.configs import train

SOURCE = "synthetic:1000x3"  # as ImageNet

WORKDIR = flags.define_workdir("Where training.json is written.")
MODEL = absl_flags.DEFINE_string("model", "resnet50", "A name of evonorms_jax.models.")
LAYERS = absl_flags.DEFINE_list("layers", "bn_relu,evonorm_b0,evonorm_s0", "The first is compared with.")
SIZE = absl_flags.DEFINE_integer("image_size", 224, "Side of the images.", lower_bound=1)
BATCH = absl_flags.DEFINE_integer("batch_size", 512, "Over all devices.", lower_bound=1)
DTYPE = absl_flags.DEFINE_string("dtype", "bfloat16", "Of activations: float32 or bfloat16.")
STEPS = absl_flags.DEFINE_integer("steps", 10, "Of a round.", lower_bound=1)
ROUNDS = absl_flags.DEFINE_integer("rounds", 5, "Of each layer.", lower_bound=1)
PEAK = absl_flags.DEFINE_float("peak_tflops", None, "Of a device in this dtype; none leaves the share out.")


def main(argv):
    """Measures, prints the table, and writes the figures."""
    del argv
    figures = measure(LAYERS.value, PEAK.value)
    console = Console()
    console.print(headline(figures["machine"]), highlight=False)
    console.print(table(figures))
    print(f"written to {write_figures(WORKDIR.value, 'training.json', figures)}")


def measure(layers: list[str], peak: float | None) -> dict[str, Any]:
    """Seconds of a step for each layer, and what follows from them."""
    runs = {layer: _Run(_config(layer)) for layer in layers}
    for _ in range(ROUNDS.value):
        for run in runs.values():
            run.round(STEPS.value)
    first = statistics.median(next(iter(runs.values())).seconds)
    rows = []
    for layer, run in runs.items():
        seconds = statistics.median(run.seconds)
        share = None if peak is None else run.operations / seconds / (peak * 1e12 * jax.device_count())
        rows.append(
            {
                "layer": layer,
                "step_seconds": seconds,
                "images_per_second": BATCH.value / seconds,
                "ratio": seconds / first,
                "build_seconds": run.build_seconds,
                "operations": run.operations,
                "parameters": run.parameters,
                "peak_share": share,
            }
        )
    settings = {flag.name: flag.value for flag in (MODEL, SIZE, BATCH, DTYPE, STEPS, ROUNDS, PEAK)}
    return {"machine": machine(), "settings": settings | {"data": SOURCE}, "rows": rows}


class _Run:
    """The training of one layer."""

    def __init__(self, config: ConfigDict):
        started = time.monotonic()
        self.task: Task = build_task(config)
        self.batch = next(self.task.batches(0))
        self.state = self.task.init()
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
        self.state, metrics = self.task.train_step(self.state, self.batch)
        jax.block_until_ready(metrics)
        self.build_seconds = time.monotonic() - started
        counted = build_task(config, jax.local_devices(backend="cpu")[:1])
        self.operations = operations(counted.train_step, counted.target, self.batch)
        self.seconds: list[float] = []

    def round(self, steps: int) -> None:
        """Adds the mean time of some steps."""
        started = time.monotonic()
        for _ in range(steps):
            self.state, metrics = self.task.train_step(self.state, self.batch)
        jax.block_until_ready((self.state, metrics))
        self.seconds.append((time.monotonic() - started) / steps)


def _config(layer: str) -> ConfigDict:
    config = train.get_config()
    config.update_from_flattened_dict(
        {
            "model.name": MODEL.value,
            "layer.spec": layer,
            "layer.group_size": None,
            "dtype": DTYPE.value,
            "batch_size": BATCH.value,
            "eval_batch_size": BATCH.value,
            "data.source": SOURCE,
            "data.stream": True,
            "data.crop": SIZE.value,
        }
    )
    return config


def table(figures: dict[str, Any]) -> Table:
    """Images a second by layer."""
    settings = figures["settings"]
    title = "{model}, {batch_size} images of {image_size} pixels, {dtype}".format(**settings)
    columns = ("images/s", "ms a step", "x the first", "share of peak", "build")
    shown = Table("layer", *columns, title=title)
    for row in figures["rows"]:
        share = "-" if row["peak_share"] is None else f"{100 * row['peak_share']:.0f} %"
        speed = f"{row['images_per_second']:,.0f}", f"{1000 * row['step_seconds']:.1f}", f"{row['ratio']:.2f}"
        shown.add_row(row["layer"], *speed, share, f"{row['build_seconds']:.0f} s")
    return shown


if __name__ == "__main__":
    flags.run(main, holds=WORKDIR)
