"""The checkpoints of a training: their state, and its metrics on any part of the data."""

from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.runs.checkpoint import Checkpoints, Restored
from evonorms_jax.runs.files import absolute
from evonorms_jax.runs.workdir import check_config, read_config
from evonorms_jax.training.classification import build_task
from evonorms_jax.training.loop import CHECKPOINTS, describe
from evonorms_jax.training.task import Builder, Task


class Opened(NamedTuple):
    """A checkpoint with the task that it belongs to."""

    config: ConfigDict
    task: Task
    step: int
    state: Any


def open_checkpoint(
    workdir: epath.PathLike,
    *,
    best: bool = False,
    data_dir: str | None = None,
    build: Builder | None = None,
) -> Opened:
    """Opens a checkpoint of a training.

    Args:
      workdir: work directory of the training.
      best: whether to take the checkpoint that is best by the task's criterion instead of the newest.
      data_dir: folder of the data, if they have moved.
      build: builder of the task, by default that of a classifier.

    Raises:
      ValueError: if it is no work directory of a training, its layer file or its data have changed, or it
        has no checkpoint.
      DataNotFoundError: if the data are missing.
    """
    workdir = absolute(workdir)
    config = training_config(workdir)
    described = describe(config)
    if data_dir is not None:
        config.data.data_dir = data_dir
    task = (build or build_task)(config)
    check_config(workdir, described | dict(task.identity))
    restored = restore(workdir, task.target, best=best)
    return Opened(config, task, restored.step, restored.arrays)


def restore(workdir: epath.Path, target: Any, *, best: bool) -> Restored:
    """Reads a checkpoint into the shapes and shardings of a state. Raises `ValueError` if there is none."""
    with Checkpoints(workdir / CHECKPOINTS, write=False) as checkpoints:
        restored = checkpoints.restore(target, best=best)
    if restored is None:
        raise UserError(f"{workdir} has no checkpoint yet")
    return restored


def training_config(workdir: epath.PathLike) -> ConfigDict:
    """The config of a training from its work directory; errors as `open_checkpoint`."""
    written = read_config(workdir)
    if "eval_every" not in written:
        raise UserError(f"{absolute(workdir)} is no work directory of a training")
    written["layer"].pop("equation", None)
    config = ConfigDict(written)
    check_config(workdir, describe(config))
    return config


def evaluate(
    workdir: epath.PathLike,
    part: str,
    *,
    best: bool = False,
    data_dir: str | None = None,
    build: Builder | None = None,
    out: epath.PathLike | None = None,
) -> tuple[int, dict[str, float]]:
    """Evaluates a checkpoint of a training on a part of its data: its step, and its metrics.

    Arguments and errors are those of `open_checkpoint`. `part` is "train", "validation" or "test", and an
    empty one raises `ValueError`. The task's pictures and files of the checkpoint go into the folder `out`,
    if there is one.
    """
    opened = open_checkpoint(workdir, best=best, data_dir=data_dir, build=build)
    found = opened.task.evaluate(opened.state, part, lambda: False)
    if not found:
        raise UserError(f"the {part} part of {dict(opened.task.about)['data']} is empty")
    if out is not None:
        absolute(out).mkdir(parents=True, exist_ok=True)
        opened.task.illustrate(opened.state, absolute(out))
    return opened.step, found
