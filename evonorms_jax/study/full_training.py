"""Runner of full trainings: every training is one command with a work directory of its own.

The commands can be run here, one after the other, or on any machines that see the work directory.
"""

import ast
import functools
import itertools
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax import tasks
from evonorms_jax.errors import UserError
from evonorms_jax.gan import results
from evonorms_jax.runs.config_checks import load_config, nearest
from evonorms_jax.runs.lock import WorkdirInUseError
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.study.cells import Cell, Runner, left
from evonorms_jax.study.table import LOST, Json, Metric
from evonorms_jax.training import loop


class Trainer(NamedTuple):
    """A kind of training that tables can be made of.

    Attributes:
      main: module with the command of one training.
      train: function of a config and a work directory. It raises `FloatingPointError` for a loss that is not
        finite, after writing `lost.json`.
      ranges: kind of its config in `runs/ranges.py`.
      result: name of the JSON file that it writes at the end.
      metrics: numbers in that file, by the name that a config uses.
    """

    main: str
    train: Callable[[ConfigDict, epath.Path], Any]
    ranges: str
    result: str
    metrics: Mapping[str, Metric]

    def pick(self, names: Sequence[str]) -> list[Metric]:
        """The metrics of these names. An unknown name, or no name, raises `ValueError`."""
        if not names:
            raise UserError(f"metrics must have at least one entry of {', '.join(self.metrics)}, got ()")
        for name in names:
            if name not in self.metrics:
                hint = nearest(name, self.metrics) or f"; known: {', '.join(self.metrics)}"
                raise UserError(f"metrics has an unknown name {name!r}{hint}")
        return [self.metrics[name] for name in names]


#: Every table can have it as a column beside a metric that leaves lost trainings out.
NAN_SHARE = Metric("NaN loss", "", lost=1.0, statistic="share", digits=0)
_DISTANCE = Metric("", "frechet.value", lost=None, statistic="median", percent=False, digits=2)
_SCORE = _DISTANCE._replace(path="score")
_AGREEMENT = Metric("agreement with the class", "agreement", lost=None, statistic="median")
#: The `task` of a table's config. A new kind of training is one entry here.
TRAINERS: dict[str, Trainer] = {
    "classification": Trainer(
        main="experiments.train",
        train=loop.train,
        ranges="training",
        result=loop.RESULT,
        metrics={
            "test.accuracy": Metric("test accuracy", "test.accuracy"),
            "validation.accuracy": Metric("validation accuracy", "validation.accuracy"),
            "nan_share": NAN_SHARE,
        },
    ),
    "detection": Trainer(
        main="experiments.detect",
        train=functools.partial(loop.train, build=tasks.build_task),
        ranges="detection",
        result=loop.RESULT,
        metrics={
            f"{part}.{kind}_{name}": Metric(f"{kind} {name}", f"{part}.{kind}_{name}")
            for part, kind, name in itertools.product(
                ("test", "validation"), ("box", "mask"), ("AP", "AP50", "AP75")
            )
        }
        | {"nan_share": NAN_SHARE},
    ),
    "gan": Trainer(
        main="experiments.generate",
        train=lambda config, workdir: results.train(config, workdir, tasks.build_task),
        ranges="gan",
        result=results.SCORES,
        # A name says which network computed the number: only the Inception network of 2015 gives an FID.
        metrics={
            "digit_frechet": _DISTANCE._replace(title="digit Frechet distance"),
            "digit_score": _SCORE._replace(title="digit score"),
            "frechet": _DISTANCE._replace(title="Frechet distance of the classifier's features"),
            "class_score": _SCORE._replace(title="class score of the classifier"),
            "agreement": _AGREEMENT,
            "fid": _DISTANCE._replace(title="FID"),
            "inception_score": _SCORE._replace(title="Inception score"),
            "kid": _DISTANCE._replace(title="KID", path="kernel_distance.value", digits=4),
            "nan_share": NAN_SHARE,
        },
    ),
}


class Recipe(NamedTuple):
    """Config of a training: a config file with its form, and overrides by dotted key."""

    file: str
    overrides: Mapping[str, Any]

    def config(self) -> ConfigDict:
        """The config; `ValueError` if it lacks a key of the overrides or needs another type."""
        config = load_config(self.file).lock()
        try:
            config.update_from_flattened_dict(dict(self.overrides))
        except (AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{self.file} with {dict(self.overrides)}: {error.args[0]}") from None
        return config

    def override(self, overrides: Mapping[str, Any]) -> "Recipe":
        """The recipe with more overrides."""
        return Recipe(self.file, {**self.overrides, **overrides})


def columns(config: ConfigDict) -> dict[str, Recipe]:
    """The recipe of each network of a table, by the network's name.

    Args:
      config: config of the table. Each of its `networks` is "NAME RECIPE KEY=VALUE ...", where RECIPE is a
        config file with its form. Its `overrides`, KEY=VALUE each, hold for all networks.

    Raises:
      ValueError: there is no network, a text lacks its recipe, a name comes twice, or an override is not
        KEY=VALUE.
    """
    if not config.networks:
        raise UserError("networks must have at least one entry, got ()")
    found: dict[str, Recipe] = {}
    for text in config.networks:
        name, *rest = text.split()
        if not rest or "=" in rest[0]:
            raise UserError(f"a network must be NAME RECIPE KEY=VALUE ..., got {text!r}")
        if name in found:
            raise UserError(f"networks must have different names, got {name!r} twice")
        found[name] = Recipe(rest[0], parse_overrides([*rest[1:], *config.overrides]))
    return found


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """`("steps=100", "data.source=mnist5k")` as a dict, whose values are Python literals or else strings.

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


class FullTraining(Runner):
    """Runner of cells whose `training` is a `Recipe`."""

    def __init__(self, folder: epath.Path, trainer: Trainer):
        """Takes the folder of the work directories and the kind of training."""
        self.folder, self.trainer = folder, trainer

    def check(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            check_ranges(cell.training.config(), self.trainer.ranges)

    def train(self, cells: Sequence[Cell]) -> Iterator[None]:
        for number, cell in enumerate(cells, 1):
            if self.result(cell) is not None:
                continue  # another process has trained it in the meantime
            name = f"training {number} of {len(cells)}: {cell.row}, {cell.column}, seed {cell.seed}"
            logging.info("%s", name)
            try:
                self.trainer.train(cell.training.config(), self.folder / cell.name)
            except (FloatingPointError, WorkdirInUseError) as error:
                # The loss was not finite, or another process trains this cell: the others can go ahead.
                logging.warning("%s: %s", name, error)
            yield

    def result(self, cell: Cell) -> Json | None:
        workdir = self.folder / cell.name
        if (workdir / self.trainer.result).exists():
            return json.loads((workdir / self.trainer.result).read_text())
        return {LOST: f"see {workdir / loop.LOST}"} if (workdir / loop.LOST).exists() else None

    def command(self, cell: Cell) -> str:
        """The command of a training, to be run in the folder of this project."""
        file, overrides = cell.training
        command = [
            "python",
            "-m",
            self.trainer.main,
            f"--config={file}",
            f"--workdir={self.folder / cell.name}",
        ]
        return shlex.join([*command, *(f"--config.{key}={value}" for key, value in overrides.items())])

    def print_commands(self, cells: Sequence[Cell]) -> None:
        """Prints the command of every training that has no result."""
        missing = left(self, cells)
        self.check(missing)
        for cell in missing:
            print(self.command(cell))
