"""Draws samples of a trained generator as PNG: by class, interpolations, and a sweep of the truncation.

  python -m experiments.sample --workdir=runs/gan
  python -m experiments.sample --workdir=runs/gan --truncation=0.5 --method=scaled
  python -m experiments.sample --workdir=runs/gan --sweep=0.25 --sweep=0.5 --sweep=1

WORKDIR/sheets gets a sheet with a row for each class and a column for each latent, and three sheets that go
from one sample to another: the latent changes, the class changes, both change. The sweep has a row for each
truncation. Statistics of the batch are accumulated anew for each of them.
"""

from absl import flags as absl_flags

from evonorms_jax import tasks
from evonorms_jax.gan import results
from evonorms_jax.gan.sampling import METHODS
from experiments import flags

WORKDIR = flags.define_required("workdir", "Work directory of the training.")
TRUNCATION = absl_flags.DEFINE_float(
    "truncation", None, "Truncation of the latents, by default the config's."
)
METHOD = absl_flags.DEFINE_enum(
    "method", None, METHODS, "Whether latents beyond the truncation are drawn again, or all are scaled by it."
)
SWEEP = absl_flags.DEFINE_multi_float("sweep", [], "A truncation of the sweep; repeat it.")
SEED = absl_flags.DEFINE_integer("seed", 0, "Seed of the latents.", 0)
COLUMNS = absl_flags.DEFINE_integer("columns", 10, "Samples of a class.", 1)
CHECKPOINT = flags.define_checkpoint("best")


def main(argv):
    """Draws, and prints the paths of the pictures."""
    del argv
    settings = results.SheetSettings(SEED.value, COLUMNS.value, tuple(SWEEP.value))
    changes = {"sampling.truncation": TRUNCATION.value, "sampling.method": METHOD.value}
    changes = {key: value for key, value in changes.items() if value is not None}
    best = CHECKPOINT.value == "best"
    paths = results.draw_sheets(WORKDIR.value, tasks.build_task, settings, best=best, changes=changes)
    print("\n".join(map(str, paths)))


if __name__ == "__main__":
    flags.run(main)
