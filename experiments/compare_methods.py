"""Compares random layers, random search and evolution, all with the same number of candidates.

For each seed it runs a random search and an evolution. Then it trains the best layer of each method anew, and
baselines beside them: with fresh seeds, on the networks of the search and on one that took no part in it. The
scores are those on test images that no search has seen. Examples:

  python -m experiments.compare_methods --config=experiments/configs/compare_mnist5k.py --workdir=runs/compare
  python -m experiments.compare_methods --config=experiments/configs/compare_mnist5k.py:quick \\
      --workdir=runs/compare_quick --config.budget=20

The same command resumes a comparison that was stopped or killed, also with more seeds. The work directory
gets compare_methods.json with all numbers, compare_methods.md with the table, and the figure as .svg and
.png. `python -m experiments.report --workdir=WORKDIR/searches/evolution-0` shows one search.
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
