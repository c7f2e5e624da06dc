"""The metrics of a trained network, from a checkpoint of its work directory, on any part of its data.

  python -m experiments.evaluate --workdir=runs/train
  python -m experiments.evaluate --workdir=runs/train --part=validation --checkpoint=best

The config is that of the training, from its `config.json`. With --out, a detector writes its scores, results
and pictures to that folder. With --images too, it draws its detections on pictures of your own instead.
"""

from absl import flags as absl_flags

from evonorms_jax import tasks
from evonorms_jax.data.sources import require
from evonorms_jax.detection.coco import PACKAGES
from evonorms_jax.errors import UserError
from evonorms_jax.training import evaluation
from experiments import flags

WORKDIR = flags.define_required("workdir", "Work directory of the training.")
PART = absl_flags.DEFINE_enum("part", "test", ["train", "validation", "test"], "Part of the data set.")
CHECKPOINT = absl_flags.DEFINE_enum(
    "checkpoint", "newest", ["newest", "best"], "Checkpoint to read; best is by the validation part."
)
DATA_DIR = absl_flags.DEFINE_string("data_dir", None, "Folder of the data, if they have moved since.")
IMAGES = absl_flags.DEFINE_string("images", None, "Folder of pictures on which to draw detections.")
OUT = absl_flags.DEFINE_string("out", None, "Folder for pictures and files, which is made.")


def main(argv):
    """Prints one line."""
    del argv
    best = CHECKPOINT.value == "best"
    if IMAGES.value:
        _draw(best)
        return
    step, found = evaluation.evaluate(
        *(WORKDIR.value, PART.value),
        best=best,
        data_dir=DATA_DIR.value,
        build=tasks.build_task,
        out=OUT.value,
    )
    figures = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
    print(f"{PART.value} {figures} at step {step}")


def _draw(best: bool) -> None:
    if not OUT.value:
        raise UserError("--images needs --out, a folder for the drawn pictures")
    require(PACKAGES, "detection", extra="coco")
    from evonorms_jax.detection.own_pictures import draw_folder  # loads these packages

    number = draw_folder(WORKDIR.value, IMAGES.value, OUT.value, best=best)
    print(f"detections on {number} pictures are in {OUT.value}")


if __name__ == "__main__":
    flags.run(main)
