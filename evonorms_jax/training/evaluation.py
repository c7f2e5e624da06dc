"""Loss and accuracy of the checkpoints of a training, on any part of its data."""

from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.runs.files import absolute
from evonorms_jax.runs.workdir import check_config, read_config
from evonorms_jax.training.loop import CHECKPOINTS, describe
from evonorms_jax.training.task import build_task


def evaluate(
    workdir: epath.PathLike, part: str, *, best: bool = False, data_dir: str | None = None
) -> tuple[int, dict[str, float]]:
    """Evaluates a checkpoint of a training on a part of its data: its step, and its loss and accuracy.

    Args:
      workdir: work directory of the training.
      part: "train", "validation" or "test".
      best: whether to take the checkpoint with the best validation accuracy instead of the newest.
      data_dir: folder of tfds, if the data have moved.

    Raises:
      ValueError: if it is no work directory of a training, its layer file has changed, it has no checkpoint,
        or the part is empty.
      DataNotFoundError: if the data are missing.
    """
    workdir = absolute(workdir)
    written = read_config(workdir)
    if "model" not in written:
        raise UserError(f"{workdir} is no work directory of a training")
    written["layer"].pop("equation", None)
    config = ConfigDict(written)
    check_config(workdir, describe(config))
    if data_dir is not None:
        config.data.data_dir = data_dir
    task = build_task(config)
    with Checkpoints(workdir / CHECKPOINTS, write=False) as checkpoints:
        restored = checkpoints.restore(task.target, best=best)
    if restored is None:
        raise UserError(f"{workdir} has no checkpoint yet")
    found = task.evaluate(restored.arrays, task.feed.evaluation(part))
    if not found:
        raise UserError(f"the {part} part of {task.feed.name} is empty")
    return restored.step, found
