"""Compares random layers, random search and evolution, all with the same number of candidates.

For each seed it runs a random search and an evolution. The best layer of each, and known layers beside them,
are trained anew with fresh seeds, on the networks of the search and on one that took no part in it, and
scored on test images that no search has seen. Examples:

  python -m experiments.compare_methods --config=experiments/configs/compare_mnist5k.py --workdir=runs/compare
  python -m experiments.compare_methods --config=experiments/configs/compare_mnist5k.py:quick \\
      --workdir=runs/compare_quick --config.budget=20

The same command again goes on where it was stopped, by Ctrl-C or harder; more seeds may be given then. The
work directory gets compare_methods.json with all numbers, compare_methods.md with the table, and the figure
as .svg and .png; `python -m experiments.report --workdir=WORKDIR/searches/evolution-0` shows one search.
"""

import json
from collections.abc import Callable

from etils import epath
from rich.console import Console
from rich.table import Table

from evonorms_jax.errors import UserError
from evonorms_jax.runs.files import absolute, write_whole
from evonorms_jax.runs.workdir import CONFIG as CONFIG_FILE
from evonorms_jax.study import drawing
from evonorms_jax.study.comparison_table import markdown, notes, table
from evonorms_jax.study.methods import run_searches
from evonorms_jax.study.results import Json, apply_methods, make_results
from evonorms_jax.study.retraining import check_settings, known_layers, retrain
from experiments import flags

CONFIG, WORKDIR = flags.define_config()
CPU_DEVICES = flags.define_cpu_devices()
NAME = "compare_methods"


def main(argv):
    """Searches, trains again, and writes what came out."""
    del argv
    figure = drawing.load("evonorms_jax.study.comparison_figure")
    flags.use_cpu_devices(CPU_DEVICES.value)
    config, workdir = CONFIG.value, absolute(WORKDIR.value)
    if (workdir / CONFIG_FILE).exists():
        raise UserError(f"{workdir} is the work directory of a single run: choose another one")
    check_settings(config, workdir / "retraining")
    searches = run_searches(config, workdir)
    known = known_layers(config.known_layers)
    runs = apply_methods(config, searches)
    chosen = [run.chosen.graph for run in runs if run.chosen is not None]
    trainings = retrain(config, workdir / "retraining", [*known.values(), *chosen])
    results = make_results(config, searches, known, trainings)
    _write(results, workdir, figure.render)
    _show(results)
    print(f"written to {workdir / NAME}.json, .md, .svg and .png")


def _write(results: Json, workdir: epath.Path, render: Callable[[Json, str], bytes]) -> None:
    write_whole(workdir / f"{NAME}.json", json.dumps(results, indent=1) + "\n")
    write_whole(workdir / f"{NAME}.md", markdown(results))
    for kind in ("svg", "png"):
        write_whole(workdir / f"{NAME}.{kind}", render(results, kind))


def _show(results: Json) -> None:
    header, rows = table(results)
    shown = Table(title=results["config"]["name"])
    for place, title in enumerate(header):
        shown.add_column(title, no_wrap=place == 0)
    for place, row in enumerate(rows, 1):
        shown.add_row(*row, end_section=place == len(results["methods"]))
    Console().print(shown, notes(results), sep="\n")


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/compare_mnist5k.py", holds=WORKDIR)
