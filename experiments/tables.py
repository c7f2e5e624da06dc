"""Makes tables of layers x networks: how layers transfer to other networks, and to small batches.

  python -m experiments.tables --config=experiments/configs/transfer_mnist5k.py --workdir=runs/transfer
  python -m experiments.tables --config=experiments/configs/batch_size_mnist5k.py --workdir=runs/batch_size
  python -m experiments.tables --config=experiments/configs/transfer_imagenet.py \\
      --workdir=gs://my-bucket/transfer --commands

A config names the layers, networks, seeds and metrics. Each cell and seed is a training with a work directory
in WORKDIR/cells. The same command resumes a table that was stopped or killed. `--commands` prints the command
of every training without a result, to be run on any machine that sees the work directory. On a TPU slice of
several hosts, run it on all of them with `--distributed` added. `--partial` makes the table of the results so
far. The work directory gets the table as .json and .md and the figure as .svg and .png.
"""

from absl import flags as absl_flags
from absl import logging

from evonorms_jax.study import transfer
from experiments import flags

CONFIG, WORKDIR = flags.define_config()
COMMANDS = absl_flags.DEFINE_bool("commands", False, "Print the commands without a result, and run none.")
PARTIAL = absl_flags.DEFINE_bool("partial", False, "Train nothing, and make the table of the results so far.")


def main(argv):
    """Passes the flags on."""
    del argv
    logging.info("the table is in %s", WORKDIR.value)
    transfer.run(CONFIG.value, WORKDIR.value, commands=COMMANDS.value, partial=PARTIAL.value)


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/transfer_mnist5k.py")
