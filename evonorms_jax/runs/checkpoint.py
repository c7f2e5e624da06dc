"""Checkpoints of a search or a training, on Orbax. A damaged one is passed over."""

import contextlib
import json
import logging as std_logging
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from evonorms_jax.errors import UserError
from evonorms_jax.runs.files import absolute, naming, write_whole

RECORD, ARRAYS = "record", "arrays"
# Written last, inside the checkpoint: its score, and size and CRC-32 of all its other files. Orbax returns
# flipped bits of an array without an error, and its background tasks print tracebacks for missing files. So
# it reads sound files only.
MANIFEST = "manifest.json"


class Restored(NamedTuple):
    """The content of one checkpoint."""

    step: int
    record: dict[str, Any]
    arrays: Any  # None for a checkpoint without arrays


class Checkpoints:
    """The checkpoints of a run in one directory, local or `gs://`: the newest few and the best one.

    The process may be killed at any moment. The directory then holds the last checkpoint for which `save` or,
    in the background, `wait` has returned. One process opens them with `write` and saves, in a pod process 0.
    The others can read.
    """

    def __init__(
        self, directory: epath.PathLike, max_to_keep: int = 3, *, background: bool = False, write: bool = True
    ):
        """Opens the directory, creating it if need be, and removes the remains of killed saves.

        Args:
          directory: folder for these checkpoints alone.
          max_to_keep: number of newest checkpoints kept, besides the one with the best score.
          background: whether `save` returns as soon as the arrays are copied to the host.
          write: whether this process saves. Otherwise no file is created or removed.
        """
        self._directory = absolute(directory)
        if write:
            self._directory.mkdir(parents=True, exist_ok=True)  # Orbax does not, for a single process
        # In a pod Orbax would wait for the other processes at every step, but they do not take part.
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
        # Orbax forgets the scores when it is opened again, so checkpoints are deleted here.
        options = ocp.CheckpointManagerOptions(
            create=False,
            enable_async_checkpointing=False,  # the thread here also writes the manifest
            cleanup_tmp_directories=write,
            lightweight_initialize=True,
            multiprocessing_options=alone,
        )
        handlers = {
            RECORD: ocp.JsonCheckpointHandler(multiprocessing_options=alone),
            ARRAYS: ocp.StandardCheckpointHandler(multiprocessing_options=alone),
        }
        self._manager = ocp.CheckpointManager(self._directory, options=options, item_handlers=handlers)
        self._max_to_keep = max_to_keep
        self._writer = ThreadPoolExecutor(1) if background else None
        self._pending: Future | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the save in progress, and releases the resources of Orbax."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def wait(self) -> None:
        """Returns when the last save is complete, or raises its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def save(
        self, step: int, *, record: dict[str, Any], arrays: Any = None, score: float | None = None
    ) -> None:
        """Writes a checkpoint and drops the oldest beyond `max_to_keep`, but not the best.

        Checkpoints at `step` and beyond are replaced, for a run that had to resume from an older one. Those
        beyond are deleted once the new one is whole. One at `step` is deleted before, since it has the same
        place.

        Args:
          step: number that orders the checkpoints.
          record: content for JSON.
          arrays: a pytree of arrays, which may change or be donated once this returns.
          score: figure of merit, or None if it is not known. A higher one is better.

        Raises:
          OSError: if it cannot be written, for example on a full disk. From the background, the next call of
            `save`, `wait` or `close` raises it. Earlier checkpoints stay.
        """
        self.wait()
        if self._writer is not None or jax.process_count() > 1:
            # Orbax takes arrays of local devices for an error in a pod, and NumPy arrays not.
            arrays = jax.device_get(arrays)
        if self._writer is None:
            self._write(step, record, arrays, score)
        else:
            self._pending = self._writer.submit(self._write, step, record, arrays, score)

    def _write(self, step: int, record: dict[str, Any], arrays: Any, score: float | None) -> None:
        with _system_errors(self._directory / str(step)):
            self._replace(step, record, arrays, score)

    def _replace(self, step: int, record: dict[str, Any], arrays: Any, score: float | None) -> None:
        existing = self._manager.all_steps()
        if step in existing:
            self._manager.delete(step)
        items = {RECORD: ocp.args.JsonSave(record)}
        if arrays is not None:
            items[ARRAYS] = ocp.args.StandardSave(arrays)
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        folder = self._directory / str(step)
        manifest = {"score": score, "files": _fingerprints(folder)}
        write_whole(folder / MANIFEST, json.dumps(manifest))
        for beyond in existing:
            if beyond > step:
                self._manager.delete(beyond)
        steps = sorted(self._manager.all_steps())
        for old in set(steps[: -self._max_to_keep]) - {self._best(steps)}:
            self._manager.delete(old)

    def add_score(self, step: int, score: float) -> None:
        """Writes the manifest of a checkpoint again, with a score. Raises `ValueError` if it is not whole."""
        self.wait()
        path = self._directory / str(step) / MANIFEST
        manifest = _manifest(path.parent)
        if manifest is None:
            raise UserError(f"there is no whole checkpoint {path.parent} to give a score")
        write_whole(path, json.dumps(manifest | {"score": score}))

    def score(self, step: int) -> float | None:
        """The score from `save` or `add_score`, or None without a score or checkpoint."""
        return (_manifest(self._directory / str(step)) or {}).get("score")

    def _best(self, steps: Sequence[int]) -> int | None:
        """The step with the best score, the latest of equals."""
        scores = {step: self.score(step) for step in steps}
        scored = [step for step in steps if scores[step] is not None]
        return max(scored, key=lambda step: (scores[step], step), default=None)

    def restore(self, arrays_target: Any = None, *, best: bool = False) -> Restored | None:
        """Reads the newest sound checkpoint, and warns of damaged ones.

        Args:
          arrays_target: a pytree of arrays or `ShapeDtypeStruct`s like the one saved, whose shardings the
            arrays get. Without it the result has NumPy arrays in nested dicts and lists.
          best: whether to begin with the checkpoint of the best score, if any has one.

        Returns:
          The checkpoint, or None if none was completed.

        Raises:
          ValueError: if all are damaged, or the sound one does not fit `arrays_target`.
        """
        self.wait()
        steps = sorted(self._manager.all_steps(), reverse=True)
        if len(steps) == 1 and not (self._directory / str(steps[0]) / MANIFEST).exists():
            return None  # the first save was not completed
        if best and (first := self._best(steps)) is not None:
            steps.sort(key=lambda step: step != first)
        for step in steps:
            damage = _damage(self._directory / str(step))
            if damage is None:
                return self._read(step, arrays_target)
            logging.warning("checkpoint %s is damaged, passed over: %s", self._directory / str(step), damage)
        if steps:
            raise UserError(
                f"all {len(steps)} checkpoints in {self._directory} are damaged; remove them to start afresh"
            )
        return None

    def _read(self, step: int, target: Any) -> Restored:
        items = {RECORD: ocp.args.JsonRestore()}
        if (self._directory / str(step) / ARRAYS).is_dir():
            saved = self._manager.item_metadata(step)[ARRAYS]
            if target is None:
                target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved)
            if misfit := _misfit(saved, target):
                folder = self._directory / str(step)
                raise UserError(f"checkpoint {folder} does not fit this program: {misfit}")
            items[ARRAYS] = ocp.args.StandardRestore(target)
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return Restored(step, restored[RECORD], restored.get(ARRAYS))


_TENSORSTORE = re.compile(r"os_error_code='(\d+)'")


@contextlib.contextmanager
def _system_errors(path: epath.Path) -> Iterator[None]:
    """Adds the path to errors of the system, which TensorStore hides in a ValueError with their number."""
    try:
        with naming(path):
            yield
    except ValueError as error:
        found = _TENSORSTORE.search(str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


# Orbax logs an error in one of its threads with a traceback before `save` raises it.
logging.get_absl_logger().addFilter(
    lambda record: "orbax" not in record.pathname or record.levelno < std_logging.ERROR
)


def _misfit(saved: Any, target: Any) -> str | None:
    """The first array by which two trees differ, in a few words. Named tuples count as dicts."""

    def shapes(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}

    there, here = shapes(saved), shapes(target)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            return f"the array {name} is {there.get(name, 'not')} there and {here.get(name, 'not')} here"
    return None


def _fingerprints(folder: epath.Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file in the folder but the manifest and its draft, by its path in there."""
    found = {}
    for path in folder.iterdir():
        if path.is_dir():
            inside = _fingerprints(path)
            found.update({f"{path.name}/{name}": inside[name] for name in inside})
        elif not path.name.startswith(MANIFEST):
            content = path.read_bytes()
            found[path.name] = [len(content), zlib.crc32(content)]
    return found


def _damage(folder: epath.Path) -> str | None:
    """The damage of a checkpoint, in a few words."""
    manifest = _manifest(folder)
    if manifest is None:
        return f"it was not completed, {MANIFEST} is missing or not JSON"
    expected, found = manifest["files"], _fingerprints(folder)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if found[name] != expected.get(name):
            return f"{name} is not as it was written"
    return None


def _manifest(folder: epath.Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, ValueError):
        return None
