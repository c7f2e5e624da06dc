"""The metrics of a trained network, from a checkpoint of its work directory, on any part of its data.

  python -m experiments.evaluate --workdir=runs/train
  python -m experiments.evaluate --workdir=runs/train --part=validation --checkpoint=best
  python -m experiments.evaluate --workdir=runs/gan --checkpoint=best --inception=inception.npz

The config is that of the training, from its `config.json`. With --out, a detector writes its scores, results
and pictures to that folder. With --images too, it draws its detections on pictures of your own instead. A
generator gets all of its scores, which also go to scores-CHECKPOINT-NETWORK.json in its work directory.
"""

from absl import flags as absl_flags

from evonorms_jax import tasks
from evonorms_jax.detection.coco import PACKAGES
from evonorms_jax.errors import UserError
from evonorms_jax.gan import results, scoring
from evonorms_jax.packages import require
from evonorms_jax.training import evaluation
from experiments import flags

WORKDIR = flags.define_required("workdir", "Work directory of the training.")
PART = absl_flags.DEFINE_enum("part", "test", ["train", "validation", "test"], "Part of the data set.")
CHECKPOINT = flags.define_checkpoint("newest")
DATA_DIR = absl_flags.DEFINE_string("data_dir", None, "Folder of the data, if they have moved since.")
IMAGES = absl_flags.DEFINE_string("images", None, "Folder of pictures on which to draw detections.")
OUT = absl_flags.DEFINE_string("out", None, "Folder for pictures and files, which is made.")
INCEPTION = flags.define_inception()


def main(argv):
    """Prints one line."""
    del argv
    best = CHECKPOINT.value == "best"
    if IMAGES.value:
        _draw(best)
        return
    if evaluation.training_config(WORKDIR.value).get("task") == results.TASK:
        changes = scoring.inception_changes(INCEPTION.value)
        changes |= {"data.data_dir": DATA_DIR.value} if DATA_DIR.value else {}
        scores = results.score(WORKDIR.value, tasks.build_task, best=best, changes=changes, extra=True)
        print(", ".join(scoring.lines(scores)), f"at step {scores['step']}")
        return
    place, options = (WORKDIR.value, PART.value), {"data_dir": DATA_DIR.value, "out": OUT.value}
    step, found = evaluation.evaluate(*place, best=best, build=tasks.build_task, **options)
    print(PART.value, ", ".join(f"{name} {value:.4f}" for name, value in found.items()), f"at step {step}")


def _draw(best: bool) -> None:
    if not OUT.value:
        raise UserError("--images needs --out, a folder for the drawn pictures")
    require(PACKAGES, "detection", install="evonorms-jax[coco]")
    from evonorms_jax.detection.own_pictures import draw_folder  # loads these packages

    number = draw_folder(WORKDIR.value, IMAGES.value, OUT.value, best=best)
    print(f"detections on {number} pictures are in {OUT.value}")


if __name__ == "__main__":
    flags.run(main)
