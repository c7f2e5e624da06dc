"""Re-ranks the best layers of a search by training full networks with them.

The proxy task ranks roughly. This takes the ten best layers of a search by mean proxy accuracy, or its
Pareto front, trains each with the networks of the config on 90 % of the training set, scores them on the
other 10 %, and keeps the best three. Examples:

  python -m experiments.rerank --config=experiments/configs/rerank_mnist5k.py --search=runs/mnist5k \\
      --workdir=runs/reranked
  python -m experiments.rerank --config=experiments/configs/rerank_imagenet.py --search=runs/cifar10_b \\
      --workdir=gs://my-bucket/reranked --commands

Each layer and network is a training with a work directory in WORKDIR/cells. The same command resumes a
ranking that was stopped or killed. `--commands` prints the command of every training without a result, to be
run on any machine that sees the work directory. The same command without it then makes the table. The work
directory gets candidates.json, rerank.json, rerank.md and reranked_layers.json, from which
norm_act("reranked_layers.json#0") makes a layer.
"""

from absl import flags as absl_flags
from absl import logging

from evonorms_jax.study import rerank
from experiments import flags

CONFIG, WORKDIR = flags.define_config()
SEARCH = flags.define_required("search", "Work directory of the search.")
COMMANDS = absl_flags.DEFINE_bool("commands", False, "Print the commands without a result, and run none.")


def main(argv):
    """Passes the flags on."""
    del argv
    logging.info("re-ranking %s in %s", SEARCH.value, WORKDIR.value)
    rerank.run(CONFIG.value, SEARCH.value, WORKDIR.value, commands=COMMANDS.value)


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/rerank_mnist5k.py")
