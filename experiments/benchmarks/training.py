"""Images per second of a full-size network with several layers in one run, and the share of the peak speed.

  python -m experiments.benchmarks.training --workdir=runs/benchmarks/training --peak_tflops=990
  python -m experiments.benchmarks.training --workdir=runs/benchmarks/training --model=mobilenet_v2 \\
      --batch_size=32 --image_size=96 --steps=2

It runs the training steps of `experiments/train.py` on made-up images that are on the device already, with
the 1,000 classes and 3 channels of ImageNet. It measures the network alone, without the input pipeline. The
layers take turns round by round, and the median over the rounds is reported. Operations are those that XLA
counts in the traced step before fusion. The default batch is for an accelerator of 80 GB. Writes
training.json into the work directory.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import flags as absl_flags
from ml_collections import ConfigDict
from rich.table import Table

from evonorms_jax.models.networks import operations
from evonorms_jax.training.classification import build_task
from evonorms_jax.training.task import Task
from experiments import flags
from experiments.benchmarks import results
from experiments.configs import train

SOURCE = "synthetic:1000x3"  # the classes and channels of ImageNet

FLAGS = absl_flags.FLAGS
_SETTINGS = ("model", "image_size", "batch_size", "dtype", "steps", "rounds", "peak_tflops")


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    flags.define_required("workdir", "Directory for training.json.")
    absl_flags.DEFINE_string("model", "resnet50", "A name of evonorms_jax.models.")
    absl_flags.DEFINE_list("layers", "bn_relu,evonorm_b0,evonorm_s0", "Layers. The first is the reference.")
    absl_flags.DEFINE_integer("image_size", 224, "Side of the images.", lower_bound=1)
    absl_flags.DEFINE_integer("batch_size", 512, "Batch size over all devices.", lower_bound=1)
    absl_flags.DEFINE_string("dtype", "bfloat16", "Dtype of activations: float32 or bfloat16.")
    absl_flags.DEFINE_integer("steps", 10, "Number of steps in a round.", lower_bound=1)
    absl_flags.DEFINE_integer("rounds", 5, "Number of rounds of each layer.", lower_bound=1)
    absl_flags.DEFINE_float(
        "peak_tflops", None, "Peak of a device in this dtype. Without it the share is not reported."
    )


def main(argv):
    """Measures, prints the table, and writes the results."""
    del argv
    measured = measure(FLAGS.layers, {name: FLAGS[name].value for name in _SETTINGS})
    results.publish(FLAGS.workdir, "training.json", measured, table(measured))


def measure(layers: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Times the training steps of each layer.

    Args:
      layers: names of layers. The first is the reference.
      settings: values of the other flags by name.

    Returns:
      A JSON object with one row for each layer.
    """
    runs = {layer: _TimedTraining(_config(layer, settings)) for layer in layers}
    for _ in range(settings["rounds"]):
        for run in runs.values():
            run.round(settings["steps"])
    first, peak = statistics.median(runs[layers[0]].seconds), settings["peak_tflops"]
    rows = []
    for layer, run in runs.items():
        seconds = statistics.median(run.seconds)
        share = None if peak is None else run.operations / seconds / (peak * 1e12 * jax.device_count())
        rows.append({
            "layer": layer,
            "step_seconds": seconds,
            "images_per_second": settings["batch_size"] / seconds,
            "ratio": seconds / first,
            "build_seconds": run.build_seconds,
            "operations": run.operations,
            "parameters": run.parameters,
            "peak_share": share,
        })  # fmt: skip
    return {"machine": results.machine(), "settings": {**settings, "data": SOURCE}, "rows": rows}


class _TimedTraining:
    """The training of one layer, with its times."""

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
        """Runs some steps and appends their mean time."""
        started = time.monotonic()
        for _ in range(steps):
            self.state, metrics = self.task.train_step(self.state, self.batch)
        jax.block_until_ready((self.state, metrics))
        self.seconds.append((time.monotonic() - started) / steps)


def _config(layer: str, settings: Mapping[str, Any]) -> ConfigDict:
    config = train.get_config()
    config.model.name, config.dtype = settings["model"], settings["dtype"]
    config.layer.spec, config.layer.group_size = layer, None
    config.batch_size = config.eval_batch_size = settings["batch_size"]
    config.data.source, config.data.stream, config.data.crop = SOURCE, True, settings["image_size"]
    return config


def table(measured: dict[str, Any]) -> Table:
    """Images per second by layer."""
    settings = measured["settings"]
    title = "{model}, {batch_size} images of {image_size} pixels, {dtype}".format(**settings)
    columns = ("images/s", "ms a step", "x the first", "share of peak", "build")
    shown = Table("layer", *columns, title=title)
    for row in measured["rows"]:
        share = "-" if row["peak_share"] is None else f"{100 * row['peak_share']:.0f} %"
        speed = f"{row['images_per_second']:,.0f}", f"{1000 * row['step_seconds']:.1f}", f"{row['ratio']:.2f}"
        shown.add_row(row["layer"], *speed, share, f"{row['build_seconds']:.0f} s")
    return shown


if __name__ == "__main__":
    define_flags()
    flags.run(main, holds="workdir")
