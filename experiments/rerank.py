"""Re-ranks the best layers of a search by training full networks with them.

The proxy task ranks roughly. This takes the ten best layers of a search by mean proxy accuracy, or its
Pareto front, trains each with the networks of the config on 90 % of the training set, scores them on the
other 10 %, and keeps the best three. Examples:

  python -m experiments.rerank --config=experiments/configs/rerank_mnist5k.py --search=runs/mnist5k \\
      --workdir=runs/reranked
  python -m experiments.rerank --config=experiments/configs/rerank_imagenet.py --search=runs/cifar10_b \\
      --workdir=gs://my-bucket/reranked --commands

Each layer and network is a training of its own, in WORKDIR/cells. The same command again goes on where it
was stopped. `--commands` prints the command of every training that is not done, to be run anywhere that
sees the work directory; afterwards the same command without it makes the table. The work directory gets
candidates.json, rerank.json, rerank.md, and reranked_layers.json, of which
norm_act("reranked_layers.json#0") makes a layer.
"""

from absl import flags as absl_flags
from rich.console import Console
from rich.table import Table

from evonorms_jax.runs.lock import hold
from evonorms_jax.study import cells, rerank
from experiments import flags

CONFIG, WORKDIR = flags.define_config()
SEARCH = flags.define_workdir("Work directory of the search.", "search")
COMMANDS = absl_flags.DEFINE_bool("commands", False, "Prints what is left to be run, and runs nothing.")


def main(argv):
    """Trains what is not trained, and ranks."""
    del argv
    config = CONFIG.value
    workdir, layers = rerank.prepare(config, SEARCH.value, WORKDIR.value)
    trainings = rerank.make_cells(config, workdir, layers)
    if COMMANDS.value:
        cells.print_commands(trainings)
        return
    with hold(workdir):
        cells.run(trainings)
        results = rerank.rank(config, layers, trainings)
        rerank.write(results, workdir)
    (_, *titles), rows = rerank.table(results)
    shown = Table(title=f"{config.name}: validation accuracy in %")
    for title in ("", *titles):
        shown.add_column(title.replace("_", " "), justify="right")  # so that it can be broken
    for place, (_, *figures) in enumerate(rows, 1):
        shown.add_row(str(place), *figures, end_section=place == config.best)
    Console().print(shown)
    # Below the table, whose columns would have cut them.
    for place, (equation, *_) in enumerate(rows, 1):
        print(f"{place:2}. {equation}")
    print(f"the best {config.best}: {workdir / rerank.LAYERS}")


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/rerank_mnist5k.py")
