"""The cells of a study, layers x networks x seeds, and the machine that trains them.

A study makes its cells, a runner trains those that have no result yet, and `collect` reads the numbers of
all. A study that is stopped resumes by the same command. There are two runners: `full_training` gives every
training its own command and work directory, `proxy_training` trains many layers by one program per anchor.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from evonorms_jax.runs.interrupt import stop_requested
from evonorms_jax.study.table import Json, Metric

STOPPED = "stopped, all finished work is saved; the same command resumes"


class Cell(NamedTuple):
    """A layer on a network with a seed.

    Attributes:
      row: title of the layer in the table.
      column: title of the network.
      seed: seed of the training.
      name: name of the training. Cells of the same name share one training.
      training: settings of the training in the form that the runner reads.
    """

    row: str
    column: str
    seed: int
    name: str
    training: Any


class Runner(Protocol):
    """Trains cells and keeps their results on disk, where other processes may add to them."""

    def check(self, cells: Sequence[Cell]) -> None:
        """Raises `ValueError` for a wrong setting in any cell, before hours of training have passed."""

    def train(self, cells: Sequence[Cell]) -> Iterator[None]:
        """Trains the cells and yields each time that results are saved, where it may be closed."""

    def result(self, cell: Cell) -> Json | None:
        """The numbers of a training: None before it is finished, `{LOST: reason}` if it was lost."""


def run(runner: Runner, cells: Sequence[Cell]) -> None:
    """Trains the cells that have no result.

    Raises:
      KeyboardInterrupt: Ctrl-C or SIGTERM came, and finished work is saved.
      ValueError, DataNotFoundError: the runner cannot train a cell.
    """
    missing = left(runner, cells)
    runner.check(missing)
    with stop_requested() as stopped, contextlib.closing(runner.train(missing)) as saved:
        for _ in saved:
            if stopped():
                raise KeyboardInterrupt(STOPPED)


def left(runner: Runner, cells: Sequence[Cell]) -> list[Cell]:
    """The trainings without a result, each by its first cell."""
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(cell.name, cell)
    return [cell for cell in first.values() if runner.result(cell) is None]


def column_title(column: str, metric: Metric, metrics: Sequence[Metric]) -> str:
    """The title of a column, which names the metric if there are several."""
    return column if len(metrics) == 1 else f"{column}, {metric.title}"


def collect(runner: Runner, cells: Sequence[Cell], metrics: Sequence[Metric]) -> dict[str, dict[str, Json]]:
    """Values by seed and their summary, `Metric.entry`, for each row and column."""
    found: dict[str, dict[str, dict[int, Json | None]]] = {}
    for cell in cells:
        found.setdefault(cell.row, {}).setdefault(cell.column, {})[cell.seed] = runner.result(cell)
    return {
        row: {
            column_title(column, metric, metrics): metric.entry(results)
            for column, results in columns.items()
            for metric in metrics
        }
        for row, columns in found.items()
    }


def provenance(runner: Runner, cells: Sequence[Cell]) -> dict[str, Any]:
    """The distinct `hardware` of all trainings, and their last `date`."""
    results = [result for cell in cells if (result := runner.result(cell)) is not None]
    hardware = [result["hardware"] for result in results if "hardware" in result]
    return {
        "hardware": [found for place, found in enumerate(hardware) if found not in hardware[:place]],
        "date": max((result["date"] for result in results if "date" in result), default=None),
    }
