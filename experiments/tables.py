"""The tables of classification results: how layers transfer to other networks, and to small batches.

  python -m experiments.tables --config=experiments/configs/transfer_mnist5k.py --workdir=runs/transfer
  python -m experiments.tables --config=experiments/configs/batch_size_mnist5k.py --workdir=runs/batch_size
  python -m experiments.tables --config=experiments/configs/transfer_imagenet.py \\
      --workdir=gs://my-bucket/transfer --commands

A config says which table, `transfer` or `batch_size`, with which layers, networks and seeds. Each cell and
seed is a training of its own, in WORKDIR/cells. The same command again goes on where it was stopped;
`--commands` prints the command of every training that is not done, to be run anywhere that sees the work
directory; on a TPU slice of several hosts, on all of them with `--distributed` added. `--partial` makes the
table of what is done. The work directory gets the table as .json and .md and the figure as .svg and .png.
"""

from absl import flags as absl_flags
from rich.console import Console
from rich.table import Table

from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.study import cells, drawing, table
from experiments import flags

CONFIG, WORKDIR = flags.define_config()
COMMANDS = absl_flags.DEFINE_bool("commands", False, "Prints what is left to be run, and runs nothing.")
PARTIAL = absl_flags.DEFINE_bool("partial", False, "Runs nothing, and makes the table of what is done.")


def main(argv):
    """Trains what is not trained, and writes the table."""
    del argv
    config = CONFIG.value
    layers = table.make_layers(config)
    described, runs = table.describe(config, layers), not (COMMANDS.value or PARTIAL.value)
    with claim_workdir(WORKDIR.value, described, alone=runs) as workdir:
        trainings = table.make_cells(config, workdir, layers)
        if COMMANDS.value:
            cells.print_commands(trainings)
            return
        figure = drawing.load("evonorms_jax.study.figures")
        if runs:
            cells.run(trainings)
        results = table.collect(config, trainings)
        paths = table.write(results, workdir, figure.render)
    header, rows = table.table(results)
    shown = Table(title=config.name)
    for title in header:
        shown.add_column(title)
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)
    if missing := len(cells.left(trainings)):
        print(f"{missing} trainings are not done: --commands prints them")
    print("written to", ", ".join(map(str, paths)))


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/transfer_mnist5k.py")
