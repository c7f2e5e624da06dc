"""Scalars of a run, for TensorBoard through tensorboardX, and as lines of JSON."""

import json
import math
import time
from collections.abc import Mapping

from absl import logging
from etils import epath
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from evonorms_jax.runs.files import naming, write_whole


class Scalars:
    """The curves of a run, which continue after a restart.

    tensorboardX's `SummaryWriter` would pass points to a thread, and its `flush` does not wait for them, so
    that a killed run would lack points from before its last checkpoint.
    """

    def __init__(self, directory: epath.PathLike, *, step: int):
        """Opens a new event file.

        Args:
          directory: folder of the event files, created if need be. For a `gs://` path tensorboardX needs
            google-cloud-storage. Without it a warning in the log replaces the curves.
          step: place from which the run continues. TensorBoard drops earlier points beyond it.
        """
        self._directory = directory = epath.Path(directory)
        self._writer = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            # Names have a resolution of one second. The suffix keeps a file with other points from being
            # overwritten. The points of a file with the same step are dropped anyway.
            self._writer = EventsWriter(str(directory / "events"), f".{step}")
        except ImportError as error:
            logging.warning("no TensorBoard scalars in %s: %s", directory, error)
            return
        self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def __enter__(self) -> "Scalars":
        return self

    def __exit__(self, *_) -> None:
        if self._writer is not None:
            with naming(self._directory):
                self._writer.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each of the curves named."""
        for name, value in values.items():
            self._write(Event(wall_time=time.time(), step=step, summary=summary.scalar(name, value)))

    def flush(self) -> None:
        """Returns when all points are in the file. To be called before a checkpoint is saved."""
        if self._writer is not None:
            with naming(self._directory):
                self._writer.flush()

    def _write(self, event: Event) -> None:
        if self._writer is not None:
            with naming(self._directory):
                self._writer.write_event(event)


def as_json(values: Mapping[str, float]) -> dict[str, float | None]:
    """The values for JSON, with None for a value that is not finite."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


class JsonLines:
    """The scalars of a run in a file, a line `{"step": ..., NAME: VALUE, ...}` for each write.

    A value that is not finite is null. A line of the same step and names is replaced, since an evaluation
    whose score was not saved is repeated. The file is written whole, since a bucket does not allow appending.
    """

    def __init__(self, path: epath.PathLike, *, step: int):
        """Continues a file, without its lines beyond `step`."""
        self._path = epath.Path(path)
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        self._lines: dict[tuple, str] = {}
        for row in map(json.loads, lines):
            if row["step"] <= step:
                self._add(row)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line."""
        self._add({"step": step, **as_json(values)})

    def flush(self) -> None:
        """Returns when all lines are in the file."""
        write_whole(self._path, "".join(f"{line}\n" for line in self._lines.values()))

    def _add(self, row: dict[str, float | None]) -> None:
        self._lines[row["step"], *row] = json.dumps(row)
