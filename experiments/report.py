"""Writes the report of a search again, at any time, also of a running or a copied work directory.

python -m experiments.report --workdir=runs/mnist5k
"""

from evonorms_jax.report import write_report
from experiments import flags

WORKDIR = flags.define_required("workdir", "Work directory of the search.")


def main(argv):
    """Writes the page."""
    del argv
    print(f"report: {write_report(WORKDIR.value)}")


if __name__ == "__main__":
    flags.run(main)
