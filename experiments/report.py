"""Writes the report of a search again, at any time, also of a running or a copied work directory.

python -m experiments.report --workdir=runs/mnist5k

It prints the best layers with their lineages, from the first ancestor on. In an equation, {-old-} was
replaced by {+new+}.
"""

from evonorms_jax.evolution.records import best_layers
from evonorms_jax.report import lineage, read_search, write_report
from experiments import flags

WORKDIR = flags.define_required("workdir", "Work directory of the search.")


def main(argv):
    """Prints the lineages and writes the page."""
    del argv
    search = read_search(WORKDIR.value)
    path = write_report(WORKDIR.value, search)
    print(lineage.describe(search, best_layers(search)))
    print(f"report: {path}")


if __name__ == "__main__":
    flags.run(main)
