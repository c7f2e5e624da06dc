"""Trainings that make a table: each cell is one command, in a work directory of its own.

Cells can be run here one after the other, or anywhere from the list of their commands. A cell is done when
its `result.json` is there, or the `lost.json` of a training whose loss was not finite.
"""

import ast
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.runs.config_checks import load_config
from evonorms_jax.runs.interrupt import stop_requested
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.training import loop


class Cell(NamedTuple):
    """One training of a table.

    Attributes:
      row: of the table: a layer.
      column: a network, or a network with a batch.
      seed: of the training.
      recipe: a config file, with its form.
      overrides: of the config, by dotted key.
      workdir: of the training.
    """

    row: str
    column: str
    seed: int
    recipe: str
    overrides: Mapping[str, Any]
    workdir: epath.Path

    def config(self) -> ConfigDict:
        """The config of the training.

        Raises:
          ValueError: if the recipe has no such key, it takes another type, or a number is out of its range.
        """
        config = load_config(self.recipe).lock()
        try:
            config.update_from_flattened_dict(dict(self.overrides))
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{self.recipe} with {dict(self.overrides)}: {error.args[0]}") from None
        check_ranges(config, "training")
        return config

    def command(self) -> str:
        """The command that runs it, from the folder of this project."""
        words = ["python", "-m", "experiments.train", f"--config={self.recipe}", f"--workdir={self.workdir}"]
        words += [f"--config.{key}={value}" for key, value in self.overrides.items()]
        return shlex.join(words)

    def done(self) -> bool:
        """Whether nothing is left to train."""
        return any((self.workdir / name).exists() for name in (loop.RESULT, loop.LOST))

    def accuracy(self, part: str) -> float | None:
        """On "validation" or "test"; 0 if the loss was not finite, None if the cell is not done."""
        result = self.result()
        if result is not None:
            return result[part]["accuracy"]
        return 0.0 if self.done() else None

    def result(self) -> dict[str, Any] | None:
        """What `loop.train` wrote; None of a cell that is not done or lost."""
        path = self.workdir / loop.RESULT
        return json.loads(path.read_text()) if path.exists() else None


def provenance(cells: Sequence[Cell]) -> dict[str, Any]:
    """Where and until when the cells were trained: the different `hardware`, and the last `date` or None."""
    results = [result for cell in cells if (result := cell.result()) is not None]
    hardware = [result["hardware"] for result in results if "hardware" in result]
    return {
        "hardware": [found for place, found in enumerate(hardware) if found not in hardware[:place]],
        "date": max((result["date"] for result in results if "date" in result), default=None),
    }


class Network(NamedTuple):
    """A column of a table: a network with the recipe that trains it."""

    name: str
    recipe: str
    overrides: dict[str, Any]


def networks(config: ConfigDict) -> list[Network]:
    """The columns of a table, from texts "NAME RECIPE KEY=VALUE ..." and overrides that hold for all of them.

    Args:
      config: its `networks` are the texts, a recipe being a config file with its form; its `overrides` are
        KEY=VALUE each.

    Raises:
      ValueError: if a text lacks its recipe, or an override is not KEY=VALUE.
    """
    found = []
    for text in config.networks:
        name, *rest = text.split()
        if not rest or "=" in rest[0]:
            raise UserError(f"a network must be NAME RECIPE KEY=VALUE ..., got {text!r}")
        found.append(Network(name, rest[0], parse_overrides([*rest[1:], *config.overrides])))
    return found


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`("steps=100", "data.source=mnist5k")` as a dict; values are Python's literals, or else strings.

    Raises:
      ValueError: if one is not KEY=VALUE.
    """
    parsed = {}
    for override in overrides:
        key, sign, text = override.partition("=")
        if not (key and sign):
            raise UserError(f"an override must be KEY=VALUE, got {override!r}")
        try:
            parsed[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            parsed[key] = text
    return parsed


def run(cells: Sequence[Cell]) -> None:
    """Runs the cells that are not done.

    Raises:
      KeyboardInterrupt: on Ctrl-C or SIGTERM, after saving.
      ValueError, DataNotFoundError: as `loop.train`.
    """
    trainings = left(cells)
    for cell in trainings:
        cell.config()  # what is wrong in any of them shows before hours have passed
    with stop_requested() as stopped:
        for number, cell in enumerate(trainings, 1):
            name = f"training {number} of {len(trainings)}: {cell.row}, {cell.column}, seed {cell.seed}"
            if stopped():
                raise KeyboardInterrupt("stopped between two trainings; the same command goes on from there")
            if cell.done():
                continue  # somebody else has run it meanwhile
            logging.info("%s", name)
            try:
                loop.train(cell.config(), cell.workdir)
            except FloatingPointError as error:
                logging.warning("%s: %s; it counts as accuracy 0", name, error)


def left(cells: Sequence[Cell]) -> list[Cell]:
    """Those that are not done; of cells that have one training, the first."""
    first: dict[epath.Path, Cell] = {}
    for cell in cells:
        first.setdefault(cell.workdir, cell)
    return [cell for cell in first.values() if not cell.done()]


def print_commands(cells: Sequence[Cell]) -> None:
    """Prints the command of every training that is not done."""
    for cell in left(cells):
        print(cell.command())
