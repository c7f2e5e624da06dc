"""The files that a search keeps in its work directory, and the history that they give back.

`checkpoints/` (Orbax) holds the history every so often. `history.jsonl` has one line a candidate, on disk
before the next round begins: between two checkpoints nothing but the round in flight can be lost.
"""

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from absl import logging
from etils import epath

from evonorms_jax.evolution.history import Evaluation, History, Record
from evonorms_jax.evolution.proposal import pareto_front
from evonorms_jax.layers import layer_file
from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.runs.files import naming, write_whole
from evonorms_jax.search_space import Graph

HISTORY, KNOWN_LAYERS, TOP_LAYERS, CHECKPOINTS = (
    "history.jsonl",
    "baselines.json",
    "top_layers.json",
    "checkpoints",
)


class Archive:
    """The history of one search on disk.

    Args:
      workdir: claimed, local or `gs://`. In a bucket, where files cannot be appended to, the whole of
        `history.jsonl` is written each time: a few MB at the end of a long search.
      top_k: layers in `top_layers.json`, besides the Pareto front.
    """

    def __init__(self, workdir: epath.Path, top_k: int):
        self._workdir, self._top_k = workdir, top_k
        self._checkpoints = Checkpoints(workdir / CHECKPOINTS)
        self._log, self._text = None, ""  # the open file, or in a bucket what is in it

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_) -> None:
        try:
            self._checkpoints.close()
        finally:
            if self._log is not None:
                with naming(self._workdir / HISTORY):
                    self._log.close()

    def restore(self) -> History:
        """The history so far: the newest sound checkpoint, and the whole lines of the log that go beyond.

        Raises:
          ValueError: if all checkpoints are damaged.
        """
        restored = self._checkpoints.restore()
        records = [] if restored is None else restored.record["history"]
        history = History(Record.from_json(record) for record in records)
        for record in self._logged(len(history)):
            history.append(record)
        self._text = _lines(history)
        write_whole(self._workdir / HISTORY, self._text)
        if str(self._workdir).startswith("/"):
            self._log = open(self._workdir / HISTORY, "a")  # noqa: SIM115 - closed by __exit__
        if len(history):
            logging.info("going on after %d candidates", len(history))
        return history

    def _logged(self, start: int) -> list[Record]:
        """Records from index `start` on, up to the first line that is not whole."""
        path = self._workdir / HISTORY
        records = []
        for line in path.read_text().splitlines()[start:] if path.exists() else []:
            try:
                record = Record.from_json(json.loads(line))
            except ValueError:
                record = None
            if record is None or record.index != start + len(records):
                number = start + len(records) + 1
                logging.warning("%s: line %d is not whole, going on from there", path, number)
                break
            records.append(record)
        return records

    def append(self, records: Sequence[Record]) -> None:
        """Adds a line each to the log; they are on disk when this returns."""
        if self._log is None:
            self._text += _lines(records)
            write_whole(self._workdir / HISTORY, self._text)
        else:
            with naming(self._workdir / HISTORY):
                self._log.write(_lines(records))
                self._log.flush()
                os.fsync(self._log.fileno())

    def checkpoint(self, history: History) -> None:
        """Saves the whole history and the top layers."""
        records = [record.to_json() for record in history]
        layers = [_top_layer(i, *pair) for i, pair in enumerate(top_records(history, self._top_k), 1)]
        write_whole(self._workdir / TOP_LAYERS, layer_file(layers))
        if len(history):
            self._checkpoints.save(len(history), record={"history": records})

    def known_layers(self) -> dict[str, dict[str, Any]]:
        """What `add_known_layer` saved, by name; none if the file is missing or damaged."""
        try:
            layers = json.loads((self._workdir / KNOWN_LAYERS).read_text())["layers"]
            return {layer["name"]: layer for layer in layers}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def add_known_layer(self, name: str, graph: Graph, evaluation: Evaluation) -> None:
        """Saves the evaluation of a published layer."""
        layer = {"name": name, "graph": graph.to_json(), "equation": str(graph), **evaluation.to_json()}
        layers = self.known_layers() | {name: layer}
        write_whole(self._workdir / KNOWN_LAYERS, layer_file(list(layers.values())))


def _lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record.to_json()) + "\n" for record in records)


def top_records(history: History, top_k: int) -> list[tuple[Record, bool]]:
    """The best `top_k` by mean score, then the rest of the Pareto front; with each, whether it is on it."""
    ranked = history.ranked()
    if not ranked:
        return []
    front = set(pareto_front([list(record.evaluation.scores.values()) for record in ranked]))
    chosen = [(record, rank in front) for rank, record in enumerate(ranked)]
    return chosen[:top_k] + [pair for pair in chosen[top_k:] if pair[1]]


def _top_layer(rank: int, record: Record, on_front: bool) -> dict[str, Any]:
    return {
        "rank": rank,
        "index": record.index,
        "pareto": on_front,
        "mean_score": record.mean_score,
        "scores": record.evaluation.scores,
        "graph": record.graph.to_json(),
        "equation": str(record.graph),
        "latex": record.graph.latex(),
    }
