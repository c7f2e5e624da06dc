"""The metrics of a trained network, from a checkpoint of its work directory, on any part of its data.

  python -m experiments.evaluate --workdir=runs/train
  python -m experiments.evaluate --workdir=runs/train --part=validation --checkpoint=best

The config is that of the training, from its `config.json`.
"""

from absl import flags as absl_flags

from evonorms_jax import tasks
from evonorms_jax.training import evaluation
from experiments import flags

WORKDIR = flags.define_required("workdir", "Work directory of the training.")
PART = absl_flags.DEFINE_enum("part", "test", ["train", "validation", "test"], "Part of the data set.")
CHECKPOINT = absl_flags.DEFINE_enum(
    "checkpoint", "newest", ["newest", "best"], "Checkpoint to read; best is by the validation part."
)
DATA_DIR = absl_flags.DEFINE_string("data_dir", None, "Folder of the data, if they have moved since.")


def main(argv):
    """Prints one line."""
    del argv
    step, found = evaluation.evaluate(
        *(WORKDIR.value, PART.value),
        best=CHECKPOINT.value == "best",
        data_dir=DATA_DIR.value,
        build=tasks.build_task,
    )
    figures = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
    print(f"{PART.value} {figures} at step {step}")


if __name__ == "__main__":
    flags.run(main)
