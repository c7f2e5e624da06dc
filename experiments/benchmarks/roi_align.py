"""Time and memory of both forms of RoIAlign, forward and backward, in one run.

  python -m experiments.benchmarks.roi_align
  python -m experiments.benchmarks.roi_align --canvas=1024 --images=1 --regions=512 --channels=256 \\
      --levels=2,6 --canonical_side=224

The defaults are the box head of `experiments/configs/detect_digits.py`. The forms take turns round by round,
so that other load on the machine affects both. The median over the rounds is reported, and its ratio to that
of the first form. Memory is the size of XLA's temporaries.
"""

import functools
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags
from rich.table import Table

from evonorms_jax.detection.roi_align import METHODS, RoiAlign
from experiments import flags
from experiments.benchmarks import results, turns

FLAGS = absl_flags.FLAGS
_SETTINGS = "images", "canvas", "regions", "channels", "bins", "sampling_ratio", "canonical_side", "rounds"


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    flags.define_counts(
        ("images", 8, "Number of images."),
        ("canvas", 128, "Side of the canvas in pixels."),
        ("regions", 32, "Regions of an image."),
        ("channels", 48, "Channels of the pyramid."),
        ("bins", 7, "Bins of a region along each axis."),
        ("sampling_ratio", 2, "Samples of a bin along each axis."),
        ("canonical_side", 112, "Side in pixels of a region that belongs to level 4."),
        ("rounds", 9, "Number of timed calls of each form."),
    )
    absl_flags.DEFINE_list("levels", "2,4", "Least and largest level of the pyramid.")
    flags.define_results()


def main(argv):
    """Measures, prints the table, and writes the results."""
    del argv
    least, most = map(int, FLAGS.levels)
    pyramid, regions = inputs(
        FLAGS.images, FLAGS.canvas, FLAGS.regions, FLAGS.channels, range(least, most + 1)
    )
    align = RoiAlign(sampling_ratio=FLAGS.sampling_ratio, canonical_side=FLAGS.canonical_side)
    rows = measure(pyramid, regions, align, FLAGS.bins, FLAGS.rounds)
    given = {name: FLAGS[name].value for name in _SETTINGS}
    measured = {"machine": results.machine(), "settings": given | {"levels": [least, most]}, "rows": rows}
    results.publish(FLAGS.workdir, "roi_align.json", measured, table(rows))


def inputs(images: int, canvas: int, regions: int, channels: int, levels: range):
    """A random pyramid by level, and boxes of 20 to 72 pixels of a canvas of 128, or in that proportion."""
    rng = np.random.default_rng(0)
    pyramid = {
        level: rng.normal(size=(images, canvas >> level, canvas >> level, channels)).astype(np.float32)
        for level in levels
    }
    side = canvas / 128 * rng.uniform(20, 72, (images, regions, 2))
    corner = rng.uniform(0, canvas - side)
    return pyramid, np.concatenate([corner, corner + side], -1).astype(np.float32)


def measure(pyramid, regions, align: RoiAlign, bins: int, rounds: int) -> list[dict[str, Any]]:
    """Times each form.

    Args:
      pyramid: maps `[B, H, W, C]` by level.
      regions: boxes `[B, N, 4]` in pixels of the canvas.
      align: settings. Each form takes the place of its method.
      bins: bins of a region along each axis.
      rounds: number of timed calls of each form, at least 1.

    Returns:
      One row for each form: milliseconds of a call with its gradient, their ratio to those of the first
      form, and bytes of temporaries.
    """
    compiled = {
        method: _gradient(align._replace(method=method), bins).lower(pyramid, regions).compile()
        for method in METHODS
    }
    calls = {method: functools.partial(call, pyramid, regions) for method, call in compiled.items()}
    turns.milliseconds(calls, 1)  # the first calls are slower
    medians = {name: statistics.median(times) for name, times in turns.milliseconds(calls, rounds).items()}
    return [
        {
            "method": method,
            "milliseconds": medians[method],
            "ratio": medians[method] / medians[METHODS[0]],
            "temporary_bytes": compiled[method].memory_analysis().temp_size_in_bytes,
        }
        for method in METHODS
    ]


def _gradient(align: RoiAlign, bins: int):
    def total(pyramid, regions):
        return jnp.sum(jnp.square(align(pyramid, regions, bins)))

    return jax.jit(jax.value_and_grad(total))


def table(rows) -> Table:
    """The rows for people."""
    shown = Table(title="RoIAlign, forward and backward")
    for column in ("form", "ms", "x the first", "temporaries MB"):
        shown.add_column(column, justify="left" if column == "form" else "right")
    for row in rows:
        size = f"{row['temporary_bytes'] / 1e6:,.0f}"
        shown.add_row(row["method"], f"{row['milliseconds']:.1f}", f"{row['ratio']:.2f}", size)
    return shown


if __name__ == "__main__":
    define_flags()
    flags.run(main, holds="workdir")
