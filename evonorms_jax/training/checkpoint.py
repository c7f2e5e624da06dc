"""Checkpoints on Orbax that are whole or passed over: of a search, of a training."""

import json
import zlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from evonorms_jax.training.workdir import absolute

RECORD, ARRAYS = "record", "arrays"
# Written last, inside the checkpoint: size and CRC-32 of all its other files. Orbax hands out flipped bits
# of an array as if nothing were wrong, and on missing files background tasks of it print tracebacks, so it
# gets to read sound files only.
MANIFEST = "manifest.json"


class Restored(NamedTuple):
    """The content of one checkpoint."""

    step: int
    record: dict[str, Any]
    arrays: Any  # None if the checkpoint was saved without arrays


class Checkpoints:
    """The checkpoints of a run in one directory, the newest few; local or `gs://`.

    A save is synchronous: the process may be killed at any moment and the directory holds the last one that
    returned. They belong to the one process that opens them, also in a pod; there, arrays can be saved by
    process 0 only.
    """

    def __init__(self, directory: epath.PathLike, max_to_keep: int = 3):
        """Opens the directory, creating it if need be, and removes what killed saves left behind."""
        self._directory = absolute(directory)
        self._directory.mkdir(parents=True, exist_ok=True)  # Orbax does not make one for a single process
        # In a pod Orbax would wait for the other processes at every step, and those know nothing of this.
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
        options = ocp.CheckpointManagerOptions(
            max_to_keep=max_to_keep,
            create=False,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,
            multiprocessing_options=alone,
        )
        handlers = {
            RECORD: ocp.JsonCheckpointHandler(multiprocessing_options=alone),
            ARRAYS: ocp.StandardCheckpointHandler(multiprocessing_options=alone),
        }
        self._manager = ocp.CheckpointManager(self._directory, options=options, item_handlers=handlers)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Releases what Orbax holds; nothing is left to be written."""
        self._manager.close()

    def save(self, step: int, *, record: dict[str, Any], arrays: Any = None) -> None:
        """Writes a checkpoint and drops the oldest beyond `max_to_keep`.

        Checkpoints at `step` and beyond are replaced: a run that had to go back to an older one writes its
        own future.

        Args:
          step: orders the checkpoints.
          record: what JSON can hold.
          arrays: a pytree of arrays.
        """
        for existing in self._manager.all_steps():
            if existing >= step:
                self._manager.delete(existing)
        items = {RECORD: ocp.args.JsonSave(record)}
        if arrays is not None:
            # Orbax takes arrays of local devices for an error in a pod, and NumPy arrays not.
            plain = jax.device_get(arrays) if jax.process_count() > 1 else arrays
            items[ARRAYS] = ocp.args.StandardSave(plain)
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        folder = self._directory / str(step)
        (folder / MANIFEST).write_text(json.dumps(_fingerprints(folder)))

    def restore(self, arrays_target: Any = None) -> Restored | None:
        """Reads the newest sound checkpoint; damaged ones are passed over with a warning.

        Args:
          arrays_target: a pytree of arrays or `ShapeDtypeStruct`s like the one saved, whose shardings the
            arrays get; None gives NumPy arrays in nested dicts and lists.

        Returns:
          The checkpoint, or None if there is none.

        Raises:
          ValueError: if all are damaged, or the sound one does not fit `arrays_target`.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            damage = _damage(self._directory / str(step))
            if damage is None:
                return self._read(step, arrays_target)
            logging.warning("checkpoint %s is damaged, passed over: %s", self._directory / str(step), damage)
        if steps:
            raise ValueError(
                f"all {len(steps)} checkpoints in {self._directory} are damaged; remove them to start afresh"
            )
        return None

    def _read(self, step: int, target: Any) -> Restored:
        items = {RECORD: ocp.args.JsonRestore()}
        if (self._directory / str(step) / ARRAYS).is_dir():
            saved = self._manager.item_metadata(step)[ARRAYS]
            if target is None:
                target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved)
            misfit = _misfit(saved, target)
            if misfit:
                raise ValueError(
                    f"checkpoint {self._directory / str(step)} does not fit this program: {misfit}"
                )
            items[ARRAYS] = ocp.args.StandardRestore(target)
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
        return Restored(step, restored[RECORD], restored.get(ARRAYS))


def _misfit(saved: Any, target: Any) -> str | None:
    """The first array by which two trees differ, in a few words; named tuples count as dicts."""

    def shapes(tree):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}

    there, here = shapes(saved), shapes(target)
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            return f"the array {name} is {there.get(name, 'not')} there and {here.get(name, 'not')} here"
    return None


def _fingerprints(folder: epath.Path) -> dict[str, list[int]]:
    """Size and CRC-32 of every file in the folder but the manifest, by its path in there."""
    found = {}
    for path in folder.iterdir():
        if path.is_dir():
            inside = _fingerprints(path)
            found.update({f"{path.name}/{name}": inside[name] for name in inside})
        elif path.name != MANIFEST:
            content = path.read_bytes()
            found[path.name] = [len(content), zlib.crc32(content)]
    return found


def _damage(folder: epath.Path) -> str | None:
    """What is wrong with a checkpoint, in a few words."""
    try:
        expected = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return f"it was not completed, {MANIFEST} is missing"
    except ValueError:
        return f"{MANIFEST} is not JSON"
    found = _fingerprints(folder)
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if found[name] != expected.get(name):
            return f"{name} is not as it was written"
    return None
