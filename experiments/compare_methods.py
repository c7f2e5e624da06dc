"""Compares search methods at equal cost: the paper's four, and three that begin with published layers.

For each seed it runs the searches, each with the same budget of training steps. It trains the best layers of
each method anew with fresh seeds and keeps the best one. Then it trains that layer, and baselines beside it,
with other fresh seeds, on the networks of the search and on one that took no part in it. The scores are those
on test images that no search has seen. Examples:

  python -m experiments.compare_methods --config=experiments/configs/compare_mnist5k.py --workdir=runs/compare
  python -m experiments.compare_methods --config=experiments/configs/compare_mnist5k.py \\
      --workdir=runs/compare --config.seeds=10
  python -m experiments.compare_methods --config=experiments/configs/compare_mnist5k.py:quick \\
      --workdir=runs/compare_quick

The same command resumes a comparison that was stopped or killed, also with more seeds. The work directory
gets compare_methods.json with all numbers, compare_methods.md with the table, and the figure as .svg and
.png. `python -m experiments.report --workdir=WORKDIR/searches/evolution-10` shows one search.
"""

from absl import logging

from evonorms_jax.study import comparison
from experiments import flags

CONFIG, WORKDIR = flags.define_config()
CPU_DEVICES = flags.define_cpu_devices()


def main(argv):
    """Passes the flags on."""
    del argv
    flags.use_cpu_devices(CPU_DEVICES.value)
    logging.info("comparing in %s", WORKDIR.value)
    comparison.run(CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/compare_mnist5k.py")
