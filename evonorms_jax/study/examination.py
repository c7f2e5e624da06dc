"""Any layers through all tests of a search: verdict, learning curves, cost, nearest known layer.

A layer is an equation, the name of a published layer, or a layer file with a number. Every number of an
examination is in one JSON object, see `examine`.
"""

import functools
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.evolution import rejection
from evonorms_jax.evolution.evaluator import Evaluator
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.layers import load_layer
from evonorms_jax.search_space import KNOWN, OPS, Graph
from evonorms_jax.search_space.cost import layer_cost
from evonorms_jax.search_space.encoding import CAPACITY, encodable, instruction_set
from evonorms_jax.search_space.probes import nearest
from evonorms_jax.search_space.simplify import readable, simplify
from evonorms_jax.search_space.text import EquationError
from evonorms_jax.study.table import Json, summarize


class Layer(NamedTuple):
    """A layer to examine: the text that names it, and its graph."""

    name: str
    graph: Graph


def read_layer(text: str) -> Layer:
    """The layer of a text: an equation, a published layer such as `evonorm_s0`, or `top_layers.json#3`.

    Raises:
      EquationError: if the text is neither a name nor a file nor an equation, with the position.
      ValueError: if the file has no such layer, or the layer has too many nodes.
    """
    text = text.strip()
    if not text:
        raise UserError("a layer must be an equation, a name or file.json#0, got an empty text")
    from_file = ".json" in text
    graph = load_layer(text) if from_file else KNOWN.get(text) or Graph.parse(text, num_nodes=None)
    if len(graph.canonical.nodes) > CAPACITY:
        raise UserError(f"{text!r} has {len(graph.canonical.nodes)} nodes, a search has at most {CAPACITY}")
    return Layer(text, graph)


def read_line(line: str) -> Layer:
    """The layer of a JSON line: a text as `read_layer` takes it, or an object.

    An object has a `graph`, as lines of a `history.jsonl` do, or an `equation`, and perhaps a `name`.

    Raises:
      ValueError: if the line is not JSON or has no layer, and the errors of `read_layer`.
    """
    try:
        row = json.loads(line)
    except ValueError:
        raise UserError(f"not a JSON line: {line.strip()[:60]!r}") from None
    if isinstance(row, str):
        return read_layer(row)
    if not isinstance(row, dict) or not ({"graph", "equation"} & row.keys()):
        raise UserError(f"a line must be a text, or an object with a graph or an equation, got {line[:60]!r}")
    layer = Layer("", Graph.from_json(row["graph"])) if "graph" in row else read_layer(str(row["equation"]))
    return layer._replace(name=str(row.get("name", row.get("equation", layer.graph))))


def error_line(text: str, error: ValueError) -> Json:
    """The answer to a layer that cannot be read, with the position of the error in the equation."""
    row: Json = {"name": text.strip(), "error": str(error)}
    return row | ({"position": error.position} if isinstance(error, EquationError) else {})


class Examiner:
    """Examines layers by the tests and the proxy task of a search config.

    A layer may have ops that the search of the config does not draw.

    Args:
      config: config of a search.
      replicas: number of seeds of the learning curves.

    Raises:
      ValueError: if a setting is wrong.
    """

    def __init__(self, config: ConfigDict, replicas: int):
        config = config.copy_and_resolve_references()
        with config.unlocked():
            config.rerank_replicas = max(
                0, replicas - config.proxy.replicas
            )  # seeds beyond those of the score
        self._config, self._replicas = config, range(replicas)
        self._known = instruction_set(config.search_space.ops)
        self._evaluator = make_evaluator(config)
        steps = config.proxy.steps
        self._steps = sorted({config.rejection.quality_steps, steps // 3, 2 * steps // 3, steps} - {0})

    @functools.cached_property
    def _of_all_ops(self) -> Evaluator:
        """An evaluator of graphs with ops that the search does not have. Its programs are larger."""
        config = self._config.copy_and_resolve_references()
        config.search_space.ops = tuple(OPS)
        return make_evaluator(config)

    @property
    def size(self) -> int:
        """Number of layers that are best examined at a time."""
        return len(self._evaluator.devices.devices)

    def examine(self, layers: Sequence[Layer]) -> list[Json]:
        """An object for each layer.

        `outcome` and `evidence` are those of a search. `stability` is the largest gradient norm of its test.
        `curves` have validation accuracies in [0, 1], by anchor a row for each seed and a column for each
        number of `steps`. `mean` and `deviation` summarize the last column over the seeds. A layer that is
        inert, or flat where that is not allowed, is not trained. `cost` is that of `search_space.cost`.
        `nearest` is the known layer with the most similar output. `seconds` are wall-clock seconds, shared
        equally. A number that is not finite is null.
        """
        started = time.monotonic()
        rows = [describe(layer) for layer in layers]
        for row in rows:
            row |= self._untrained_verdict(row)
        alive = [place for place, row in enumerate(rows) if row["outcome"] is None]
        for known in (True, False):
            places = [place for place in alive if encodable(layers[place].graph, self._known) == known]
            if not places:  # no program need be built
                continue
            evaluator = self._evaluator if known else self._of_all_ops
            trainings = self._train(evaluator, [layers[place].graph for place in places])
            for place, trained in zip(places, trainings, strict=True):
                rows[place] |= trained
        for row in rows:
            row["seconds"] = (time.monotonic() - started) / len(layers)
        return rows

    def _train(self, evaluator: Evaluator, graphs: Sequence[Graph]) -> list[Json]:
        """The fields of an examination that need training."""
        # Not `examine` of the evaluator: a second layer with the same function has an answer of its own.
        evaluations, climbs = evaluator.evaluate(graphs), evaluator.stability(graphs)
        curves = evaluator.replica_curves(graphs, self._steps, self._replicas)
        return [
            {
                "outcome": evaluation.outcome,
                "evidence": {name: _finite(value) for name, value in evaluation.evidence.items()},
                "stability": {"norm": _finite(norm), "steps": steps},
            }
            | self._scores(curve)
            for evaluation, (norm, steps), curve in zip(evaluations, climbs, curves, strict=True)
        ]

    def _untrained_verdict(self, row: Json) -> Json:
        """The outcome by the tests that look at outputs alone, None if the layer passes them."""
        for outcome in ("inert", "flat"):
            tested = outcome == "inert" or not self._config.rejection.allow_flat
            if tested and row[outcome] is not None:
                return {"outcome": outcome, "evidence": {"reason": row[outcome]}}
        return {"outcome": None, "evidence": {}}

    def _scores(self, curve: dict[str, np.ndarray]) -> Json:
        by_seed = np.mean([scores[:, -1] for scores in curve.values()], axis=0)
        summary = summarize(by_seed.tolist())
        return {
            "steps": self._steps,
            "curves": {name: scores.tolist() for name, scores in curve.items()},
            "mean": summary["mean"],
            "deviation": summary["deviation"],
        }


def describe(layer: Layer) -> Json:
    """All that is known of a layer without training."""
    graph = layer.graph
    name, distance = nearest(graph, KNOWN)
    return {
        "name": layer.name,
        "equation": str(graph.canonical),
        "simplified": readable(graph),
        "latex": simplify(graph).latex(),
        "graph": graph.to_json(),
        "batch_dependent": graph.batch_dependent,
        "inert": (rejection.inert(graph) or {}).get("reason"),
        "flat": (rejection.flat(graph) or {}).get("reason"),
        "nearest": {"name": name, "difference": _finite(distance)},
        "cost": layer_cost(graph).to_json(),
    }


def _finite(value: Any) -> Any:
    """The value, but None for a number that is not finite, for which JSON has no text."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def answers(
    examiner: Examiner, layers: Sequence[Layer], lines: Iterable[Sequence[str]]
) -> Iterator[list[Json]]:
    """The examinations of layers and of JSON lines, a few at a time, in order.

    Args:
      examiner: examiner of all of them.
      layers: layers that are examined first.
      lines: chunks of JSON lines. A wrong line has an `error_line` for an answer.
    """
    for start in range(0, len(layers), examiner.size):
        yield examiner.examine(layers[start : start + examiner.size])
    for chunk in lines:
        for start in range(0, len(chunk), examiner.size):
            yield _answer_lines(examiner, chunk[start : start + examiner.size])


def _answer_lines(examiner: Examiner, lines: Sequence[str]) -> list[Json]:
    found: list[Layer | Json] = []
    for line in lines:
        try:
            found.append(read_line(line))
        except ValueError as error:
            found.append(error_line(line, error))
    examined = iter(examiner.examine([layer for layer in found if isinstance(layer, Layer)]))
    return [next(examined) if isinstance(row, Layer) else row for row in found]
