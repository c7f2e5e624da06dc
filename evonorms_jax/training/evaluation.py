"""The metrics of the checkpoints of a training, on any part of its data."""

from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.runs.files import absolute
from evonorms_jax.runs.workdir import check_config, read_config
from evonorms_jax.training.classification import build_task
from evonorms_jax.training.loop import CHECKPOINTS, describe
from evonorms_jax.training.task import Builder


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

    Args:
      workdir: work directory of the training.
      part: "train", "validation" or "test".
      best: whether to take the checkpoint that is best by the task's criterion instead of the newest.
      data_dir: folder of the data, if they have moved.
      build: builder of the task, by default that of a classifier.
      out: folder for the task's pictures and files of the checkpoint, by default none.

    Raises:
      ValueError: if it is no work directory of a training, its layer file or its data have changed, it
        has no checkpoint, or the part is empty.
      DataNotFoundError: if the data are missing.
    """
    workdir = absolute(workdir)
    written = read_config(workdir)
    if "model" not in written:
        raise UserError(f"{workdir} is no work directory of a training")
    written["layer"].pop("equation", None)
    config = ConfigDict(written)
    described = describe(config)
    check_config(workdir, described)
    if data_dir is not None:
        config.data.data_dir = data_dir
    task = (build or build_task)(config)
    check_config(workdir, described | dict(task.identity))
    with Checkpoints(workdir / CHECKPOINTS, write=False) as checkpoints:
        restored = checkpoints.restore(task.target, best=best)
    if restored is None:
        raise UserError(f"{workdir} has no checkpoint yet")
    found = task.evaluate(restored.arrays, part, lambda: False)
    if not found:
        raise UserError(f"the {part} part of {dict(task.about)['data']} is empty")
    if out is not None:
        absolute(out).mkdir(parents=True, exist_ok=True)
        task.illustrate(restored.arrays, absolute(out))
    return restored.step, found
