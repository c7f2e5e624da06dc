"""Reads the work directory of a search into plain typed records; `archive.py` writes it.

A running search may be read at any moment, so the last line of the history may be torn.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.fronts import pareto_front
from evonorms_jax.evolution.history import Evaluation, History, Record
from evonorms_jax.evolution.reranking import RerankedLayer
from evonorms_jax.evolution.search import is_finished
from evonorms_jax.runs.files import absolute
from evonorms_jax.runs.workdir import CONFIG
from evonorms_jax.search_space import Graph
from evonorms_jax.search_space.cost import layer_cost
from evonorms_jax.search_space.probes import clusters
from evonorms_jax.search_space.simplify import readable

#: Files in the work directory of a search, besides `config.json`.
HISTORY_FILE, BASELINES_FILE = "history.jsonl", "baselines.json"
TOP_LAYERS_FILE, DEVICES_FILE, RERANKED_FILE = "top_layers.json", "devices.json", "reranked.json"


class WorkdirError(UserError):
    """The directory is not a sound work directory of a search. The message is one line."""


class ScoredLayer(NamedTuple):
    """A layer beside others: a discovered one, or a baseline trained the same way.

    Attributes:
      title: "candidate 17", "BN-ReLU".
      graph: genotype.
      equation: text of the equation.
      scores: validation accuracy in [0, 1] by anchor, empty for a rejected layer.
      pareto: whether it is on the Pareto front of the search, False for a baseline.
      index: index of the candidate, or None for a baseline.
      outcome: a key of `OUTCOMES`.
      evidence: measurement that decided the outcome.
      members: indices of the candidates whose outputs agree with this one's to 1 %, which is the best of
        them and comes first; empty for a baseline.
      deviation: sample standard deviation of the mean accuracy over the seeds, None for a single seed.
    """

    title: str
    graph: Graph
    equation: str
    scores: dict[str, float]
    pareto: bool = False
    index: int | None = None
    outcome: str = "accepted"
    evidence: Mapping[str, Any] = MappingProxyType({})
    deviation: float | None = None
    members: tuple[int, ...] = ()

    @property
    def simplified(self) -> str:
        """The equation for people, see `search_space.simplify`."""
        return readable(self.graph)

    @property
    def mean_score(self) -> float | None:
        """Mean accuracy over the anchors, or None without scores."""
        return mean_score(self.scores)


class Search(NamedTuple):
    """The content of a search's work directory.

    Attributes:
      config: settings, nested.
      version: version of the package that ran the search.
      anchors: names of the anchors, in the order of the config.
      history: examined candidates.
      baselines: trained baselines, empty before they are trained.
      saved: indices of the candidates in `top_layers.json`, in its order, empty before it is written. The
        file is written with each checkpoint, so the history can be ahead of it.
      reranked: layers trained again with fresh seeds, the best one first, baselines included; empty before.
      torn: whether an incomplete last line of the history was left out.
      idle_share: share in [0, 1] of the time that process 0's devices spent waiting, in the last run that
        ended, or None before that.
    """

    config: dict[str, Any]
    version: str
    anchors: tuple[str, ...]
    history: History
    baselines: list[ScoredLayer]
    saved: list[int]
    reranked: list[RerankedLayer]
    torn: bool
    idle_share: float | None

    @property
    def finished(self) -> bool:
        """Whether the budget is spent. A search of method "random" ends with its first accepted layer."""
        found = self.config["method"] == "random" and self.history.selectable()
        budget, limit = self.config["budget"], self.device_steps
        round_size = 1 if limit is None else self.config["evolution"]["round_size"]
        return bool(found) or is_finished(self.history, round_size, budget=budget, device_steps=limit)

    @property
    def device_steps(self) -> int | None:
        """The budget of training steps, None without one. Configs of early versions lack the key."""
        return self.config.get("device_steps")


def mean_score(scores: Mapping[str, float]) -> float | None:
    """Mean accuracy over the anchors, or None without scores."""
    return float(np.mean(list(scores.values()))) if scores else None


# -- Reading


def read_search(workdir: str | epath.PathLike) -> Search:
    """Reads the work directory, of which only `config.json` must exist.

    Raises:
      WorkdirError: if the directory does not exist, belongs to something else, or has a damaged file. For the
        history the message names the line.
    """
    workdir = absolute(workdir)
    if not workdir.is_dir():
        raise WorkdirError(f"no such work directory: {workdir}")
    if not (workdir / CONFIG).exists():
        raise WorkdirError(f"{workdir} is not the work directory of a search: it has no {CONFIG}")
    config, version = _read_config(workdir / CONFIG)
    anchors = tuple(config["anchors"])
    history, torn = _read_sound_history(workdir / HISTORY_FILE, anchors)
    return Search(
        config=config,
        version=version,
        anchors=anchors,
        history=history,
        baselines=_read_layers(workdir / BASELINES_FILE, lambda row: _baseline(row, anchors)),
        saved=_read_layers(workdir / TOP_LAYERS_FILE, lambda row: int(row["index"])),
        reranked=_read_layers(workdir / RERANKED_FILE, RerankedLayer.from_json),
        torn=torn,
        idle_share=_read_idle_share(workdir / DEVICES_FILE),
    )


class Damage(NamedTuple):
    """The first line of a history that is not a sound record.

    Attributes:
      message: one line that names the file, the line and the reason.
      torn: whether it is the last line, cut off while it was written.
    """

    message: str
    torn: bool


def read_history(path: epath.Path, start: int = 0) -> tuple[list[Record], Damage | None]:
    """The records of a `history.jsonl` from index `start` on, up to the first line that is not sound.

    Returns:
      The records, and the damage that ended them, or None at the end of the file. A missing file is empty.
    """
    lines = path.read_bytes().rstrip().split(b"\n") if path.exists() else []
    records = []
    for number, line in enumerate(lines[start:], start + 1):
        try:
            row = json.loads(line)
        except ValueError:  # not JSON, or not UTF-8
            torn = number == len(lines)
            empty = torn and not line
            return records, None if empty else Damage(f"{path} is damaged: line {number} is not JSON", torn)
        try:
            record = Record.from_json(row)
            if record.index != number - 1:
                raise UserError(f"the next record has index {number - 1}, got {record.index}")
        except ValueError as error:
            return records, Damage(f"{path}, line {number} is damaged: {error}", False)
        records.append(record)
    return records, None


def _read_sound_history(path: epath.Path, anchors: tuple[str, ...]) -> tuple[History, bool]:
    """The history, and whether its last line was torn. Raises `WorkdirError` at any other damage."""
    records, damage = read_history(path)
    if damage and not damage.torn:
        raise WorkdirError(damage.message)
    for record in records:
        _checked(lambda r: _check_scores(r.evaluation, anchors), record, f"{path}, line {record.index + 1}")
    return History(records), damage is not None


def _read_config(path: epath.Path) -> tuple[dict[str, Any], str]:
    """The settings, at least the ones that the report prints, and the version that ran the search."""
    config, version = _checked(lambda row: (dict(row["config"]), str(row["version"])), _read_json(path), path)
    missing = [key for key in ("name", "method", "budget", "top_k", "anchors") if key not in config]
    if missing:
        raise WorkdirError(f"{path} is not the config of a search: it has no {', '.join(missing)}")
    return config, version


def _read_json(path: epath.Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError:  # not JSON, or not UTF-8
        raise WorkdirError(f"{path} is damaged: it is not JSON") from None


def _read_layers(path: epath.Path, make: Callable[[Any], Any]) -> list[Any]:
    """`make(row)` of each layer of a file, empty if the file does not exist."""
    if not path.exists():
        return []
    rows = _checked(lambda data: list(data["layers"]), _read_json(path), path)
    return [_checked(make, row, f"{path}, layer #{number}") for number, row in enumerate(rows)]


def _read_idle_share(path: epath.Path) -> float | None:
    return _checked(lambda row: float(row["idle_share"]), _read_json(path), path) if path.exists() else None


def _checked(make: Callable[[Any], Any], row: Any, where: object) -> Any:
    """`make(row)`; its error becomes a `WorkdirError` of one line."""
    try:
        return make(row)
    except KeyError as error:
        raise WorkdirError(f"{where} is damaged: it has no {error.args[0]!r}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise WorkdirError(f"{where} is damaged: {error}") from None


def _baseline(row: Mapping[str, Any], anchors: tuple[str, ...]) -> ScoredLayer:
    evaluation = Evaluation.from_json(row)
    _check_scores(evaluation, anchors)
    return ScoredLayer(
        title=layer_title(row["name"]),
        graph=Graph.from_json(row["graph"]),
        equation=str(row["equation"]),
        scores=evaluation.scores,
        outcome=evaluation.outcome,
        evidence=evaluation.evidence,
        deviation=evaluation.deviation,
    )


def _check_scores(evaluation: Evaluation, anchors: tuple[str, ...]) -> None:
    scores = evaluation.scores
    if evaluation.outcome == "accepted" and set(scores) != set(anchors):
        raise UserError(f"scores of {', '.join(scores) or 'no anchor'}, expected {', '.join(anchors)}")


# -- Ranking


_SPELLING = {
    "evonorm": "EvoNorm",
    "pn": "PixelNorm",
    "relu": "ReLU",
    "silu": "SiLU",
    "rms": "RMSNorm",
    "lnc": "LN(C)",
    "dyt": "DyT",
    "derf": "Derf",
}


def layer_title(name: str) -> str:
    """The printed name of a layer: `bn_relu` is BN-ReLU, `evonorm_b0` EvoNorm-B0. A file has its path."""
    if ".json" in name:
        return name
    return "-".join(_SPELLING.get(part, part.upper()) for part in name.split("_"))


def trained_baselines(search: Search) -> list[ScoredLayer]:
    """The baselines that passed the tests."""
    return [layer for layer in search.baselines if layer.outcome == "accepted"]


def score_matrix(scores: Sequence[Mapping[str, float]], anchors: Sequence[str]) -> np.ndarray:
    """Scores by anchor as `[N, K]`, the K anchors in the order given."""
    return np.array([[row[anchor] for anchor in anchors] for row in scores]).reshape(-1, len(anchors))


def front_of(records: Sequence[Record], anchors: Sequence[str]) -> list[int]:
    """Positions of the records on the Pareto front, empty without records."""
    scores = score_matrix([record.evaluation.scores for record in records], anchors)
    return pareto_front(scores) if len(scores) else []


def cost_front(history: History) -> list[Record]:
    """The candidates that no other one beats in mean score and in passes over x, the cheapest first.

    Of equal ones only the earliest is in it.
    """
    found = {}
    for record in history.ranked():
        found.setdefault((record.mean_score, -layer_cost(record.graph).passes), record)
    front = pareto_front(np.reshape(list(found), (-1, 2)))
    records = list(found.values())
    return sorted((records[place] for place in front), key=lambda record: layer_cost(record.graph).passes)


def top_layers(history: History, top_k: int) -> list[ScoredLayer]:
    """The best `top_k` accepted candidates by mean score, then the rest of their Pareto front.

    Of layers whose outputs agree to 1 % the best one stands for all. It has the others as `members`.
    """
    ranked = history.ranked()
    front = set(front_of(ranked, list(ranked[0].evaluation.scores))) if ranked else set()
    groups = clusters([record.graph for record in ranked], top_k, front)
    return [
        ScoredLayer(
            title=f"candidate {ranked[group[0]].index}",
            graph=ranked[group[0]].graph,
            equation=str(ranked[group[0]].graph),
            scores=ranked[group[0]].evaluation.scores,
            pareto=group[0] in front,
            index=ranked[group[0]].index,
            members=tuple(ranked[place].index for place in group),
            deviation=ranked[group[0]].evaluation.deviation,
        )
        for group in groups
    ]


def best_layers(search: Search) -> list[ScoredLayer]:
    """The `top_layers` of a search in the order of its file: that of the re-ranking if there was one."""
    return in_new_order(top_layers(search.history, search.config["top_k"]), search.reranked)


def in_new_order(layers: Sequence[ScoredLayer], reranked: Sequence[RerankedLayer]) -> list[ScoredLayer]:
    """The layers with the best mean over fresh seeds first, then those that were not trained again."""
    means = {layer.index: layer.mean for layer in reranked if layer.index is not None}
    return sorted(layers, key=lambda layer: -means.get(layer.index, -1))
