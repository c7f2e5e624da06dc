"""Writes the files of a search into its work directory; `records.py` reads them.

`history.jsonl` has one line a candidate, on disk before the next round begins, so a crash loses at most the
round in flight. In a bucket it loses at most a sixty-fourth of the history, which is examined again.
`checkpoints/` (Orbax) holds the whole history at intervals.
"""

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from absl import logging
from etils import epath

from evonorms_jax.evolution.history import Evaluation, History, Record
from evonorms_jax.evolution.records import (
    BASELINES_FILE,
    HISTORY_FILE,
    RERANKED_FILE,
    TOP_LAYERS_FILE,
    ScoredLayer,
    in_new_order,
    read_history,
    top_layers,
)
from evonorms_jax.evolution.reranking import RerankedLayer, ranking
from evonorms_jax.layers import layer_file
from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.runs.files import is_local, naming, write_whole
from evonorms_jax.search_space import Graph
from evonorms_jax.search_space.cost import layer_cost
from evonorms_jax.search_space.simplify import simplify

_MOST_MEMBERS = 20  # of a cluster, best first, in the file of the top layers

# A log in a bucket is written whole when one part of so many is new. All writes together then cost no more
# than this multiple of the last one.
_PARTS = 64


class Archive:
    """The history of one search on disk.

    Args:
      workdir: claimed work directory, local or `gs://`. Files in a bucket cannot be appended to, so there the
        whole `history.jsonl` is written each time that it has grown by a sixty-fourth, and at the end.
      top_k: number of layers in `top_layers.json`, besides the Pareto front.
    """

    def __init__(self, workdir: epath.Path, top_k: int):
        self._workdir, self._top_k = workdir, top_k
        self._checkpoints = Checkpoints(workdir / "checkpoints")
        self._log = None  # the open file, unless it is in a bucket
        self._text: list[str] = []  # the content of the file in a bucket, by round
        self._length = self._unsaved = 0  # characters of the content, and of its part that is not saved

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_) -> None:
        try:
            self._checkpoints.close()
        finally:
            if self._unsaved:
                self._save_text()
            if self._log is not None:
                with naming(self._workdir / HISTORY_FILE):
                    self._log.close()

    def restore(self) -> History:
        """The history so far: the newest sound checkpoint, then the sound lines of the log beyond it.

        Raises:
          ValueError: if all checkpoints are damaged.
        """
        restored = self._checkpoints.restore()
        records = [] if restored is None else restored.record["history"]
        history = History(Record.from_json(record) for record in records)
        logged, damage = read_history(self._workdir / HISTORY_FILE, start=len(history))
        for record in logged:
            history.append(record)
        if damage:
            logging.warning("%s; the search resumes from that line", damage.message)
        text = _lines(history)
        write_whole(self._workdir / HISTORY_FILE, text)
        if not is_local(self._workdir):
            self._text, self._length = [text], len(text)
        else:
            self._log = open(self._workdir / HISTORY_FILE, "a")  # noqa: SIM115 - closed by __exit__
        if len(history):
            logging.info("resuming after %d candidates", len(history))
        return history

    def append(self, records: Sequence[Record]) -> None:
        """Adds one line for each record to the log. They are on disk when this returns, but see `Archive`."""
        if self._log is None:
            self._text.append(_lines(records))
            self._length += len(self._text[-1])
            self._unsaved += len(self._text[-1])
            if self._unsaved * _PARTS >= self._length:
                self._save_text()
        else:
            with naming(self._workdir / HISTORY_FILE):
                self._log.write(_lines(records))
                self._log.flush()
                os.fsync(self._log.fileno())

    def _save_text(self) -> None:
        write_whole(self._workdir / HISTORY_FILE, "".join(self._text))
        self._unsaved = 0

    def checkpoint(self, history: History) -> None:
        """Saves the whole history and the top layers, in the order of the re-ranking if there was one."""
        reranked = self.reranked()
        again = {layer.index: layer for layer in reranked}
        layers = top_layers(history, self._top_k)
        ranks = {layer.index: rank for rank, layer in enumerate(layers, 1)}
        ordered = in_new_order(layers, reranked)
        rows = [_top_layer(ranks[layer.index], layer, again.get(layer.index)) for layer in ordered]
        write_whole(self._workdir / TOP_LAYERS_FILE, layer_file(rows))
        if len(history):
            self._checkpoints.save(len(history), record={"history": [record.to_json() for record in history]})

    def baselines(self) -> dict[str, dict[str, Any]]:
        """The baselines saved so far by name, empty if the file is missing or damaged."""
        try:
            layers = json.loads((self._workdir / BASELINES_FILE).read_text())["layers"]
            return {layer["name"]: layer for layer in layers}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def add_baseline(self, name: str, graph: Graph, evaluation: Evaluation) -> None:
        """Saves the evaluation of a baseline."""
        layer = {"name": name, "graph": graph.to_json(), "equation": str(graph), **evaluation.to_json()}
        layers = self.baselines() | {name: layer}
        write_whole(self._workdir / BASELINES_FILE, layer_file(list(layers.values())))

    def reranked(self) -> list[RerankedLayer]:
        """The layers that were trained again so far, empty if the file is missing or damaged."""
        try:
            rows = json.loads((self._workdir / RERANKED_FILE).read_text())["layers"]
            return [RerankedLayer.from_json(row) for row in rows]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def add_reranked(self, layers: Sequence[RerankedLayer]) -> list[RerankedLayer]:
        """Saves layers that were trained again, and returns all of them in the order of their new rank."""
        ranked = ranking([*self.reranked(), *layers])
        write_whole(self._workdir / RERANKED_FILE, layer_file([layer.to_json() for layer in ranked]))
        return ranked


def _lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record.to_json()) + "\n" for record in records)


def _top_layer(rank: int, layer: ScoredLayer, again: RerankedLayer | None) -> dict[str, Any]:
    """A layer of `top_layers.json`. Its rank is that of the search; `reranked` has the fresh seeds."""
    fresh = again and {"mean": again.mean, "deviation": again.deviation, "scores": again.scores}
    return {
        "rank": rank,
        "index": layer.index,
        "pareto": layer.pareto,
        "mean_score": layer.mean_score,
        "deviation": layer.deviation,
        "scores": layer.scores,
        "reranked": fresh,
        "cluster": {"size": len(layer.members), "members": list(layer.members[:_MOST_MEMBERS])},
        "cost": layer_cost(layer.graph).to_json(),
        "graph": layer.graph.to_json(),
        "equation": layer.equation,
        "simplified": layer.simplified,
        "latex": simplify(layer.graph).latex(),
    }
