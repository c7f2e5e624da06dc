"""The work directory of a search, read into plain typed records.

Files: `config.json`, `history.jsonl` with a line a candidate, and, once they exist, `baselines.json`,
`top_layers.json` and `devices.json`. A running search may be read at any moment: the last line of the history
may be torn.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.archive import top_records
from evonorms_jax.evolution.history import History, Record
from evonorms_jax.evolution.proposal import pareto_front
from evonorms_jax.runs.files import absolute
from evonorms_jax.search_space import Graph


class WorkdirError(UserError):
    """The directory is not a sound work directory of a search; the message is one line."""


class Outcome(NamedTuple):
    """How the examination of a candidate ended: a name for people, and what it means."""

    title: str
    meaning: str


#: By the name in the files, in order of the tests, which is that of their cost.
OUTCOMES: dict[str, Outcome] = {
    "inert": Outcome("inert", "the output does not depend on x, or is not finite"),
    "duplicate": Outcome("duplicate", "computes the function of an earlier candidate"),
    "batch_dependent": Outcome("batch-dependent", "uses statistics of the batch"),
    "unstable": Outcome("unstable", "gradient norm blows up in the stability test"),
    "low_quality": Outcome("low quality", "learns too little in the first steps"),
    "diverged": Outcome("diverged", "loss not finite in training"),
    "accepted": Outcome("accepted", "trained fully on every anchor"),
}


class Layer(NamedTuple):
    """A layer to show beside others: a discovered one, or a baseline trained the same way.

    Attributes:
      title: "candidate 17", "BN-ReLU".
      graph: the genotype.
      equation: text.
      scores: validation accuracy in [0, 1] by anchor; empty if rejected.
      pareto: whether it is on the Pareto front of the search; False for a baseline.
      index: of the candidate, None for a baseline.
      outcome: a key of `OUTCOMES`.
      figure: what decided the outcome.
    """

    title: str
    graph: Graph
    equation: str
    scores: dict[str, float]
    pareto: bool = False
    index: int | None = None
    outcome: str = "accepted"
    figure: Mapping[str, Any] = MappingProxyType({})


class Search(NamedTuple):
    """All that is known of a search.

    Attributes:
      config: the settings, nested.
      version: of the package that ran it.
      anchors: names of the anchors, in the order of the config.
      history: the candidates examined.
      baselines: empty while they are not trained.
      saved: indices of the candidates in `top_layers.json`, in its order; none while it is not written. It is
        written now and then: the history can be ahead of it.
      torn: whether an incomplete last line of the history was left out.
      idle_share: how much of the time of process 0's devices was waiting, in [0, 1], over the last run that
        came to an end; None before that.
    """

    config: dict[str, Any]
    version: str
    anchors: tuple[str, ...]
    history: History
    baselines: list[Layer]
    saved: list[int]
    torn: bool
    idle_share: float | None

    @property
    def finished(self) -> bool:
        """Whether the budget is spent; one random layer is a whole search of method "random"."""
        found = self.config["method"] == "random" and self.history.population(1)
        return bool(found) or len(self.history) >= self.config["budget"]


def mean_score(scores: Mapping[str, float]) -> float | None:
    """Mean accuracy over the anchors; None without scores."""
    return float(np.mean(list(scores.values()))) if scores else None


def read_search(workdir: str | epath.PathLike) -> Search:
    """Reads the work directory, of which only `config.json` must exist.

    Raises:
      WorkdirError: if there is no such directory, it is not one of a search, or a file is damaged; for the
        history with the number of the line.
    """
    workdir = absolute(workdir)
    if not workdir.is_dir():
        raise WorkdirError(f"no such work directory: {workdir}")
    if not (workdir / "config.json").exists():
        raise WorkdirError(f"{workdir} is not the work directory of a search: it has no config.json")
    config, version = _read_config(workdir / "config.json")
    anchors = tuple(config["anchors"])
    history, torn = _read_history(workdir / "history.jsonl", anchors)
    return Search(
        config=config,
        version=version,
        anchors=anchors,
        history=history,
        baselines=_read_layers(workdir / "baselines.json", lambda row: _baseline(row, anchors)),
        saved=_read_layers(workdir / "top_layers.json", lambda row: int(row["index"])),
        torn=torn,
        idle_share=_read_idle_share(workdir / "devices.json"),
    )


def _read_config(path: epath.Path) -> tuple[dict[str, Any], str]:
    """The settings, with at least those that the report speaks of, and the version that ran the search."""
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


def _read_history(path: epath.Path, anchors: tuple[str, ...]) -> tuple[History, bool]:
    """The candidates, and whether the last line was torn: cut off where the writer stands or was killed."""
    history = History()

    def append(row):
        record = Record.from_json(row)
        _check_outcome(record.evaluation.outcome, record.evaluation.scores, anchors)
        history.append(record)

    lines = path.read_bytes().rstrip().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            if number == len(lines):
                return history, bool(line)
            raise WorkdirError(f"{path} is damaged: line {number} is not JSON") from None
        _checked(append, row, f"{path}, line {number}")
    return history, False


def _read_layers(path: epath.Path, make: Callable[[Any], Any]) -> list[Any]:
    """`make(row)` of each layer of a file; none if there is no such file."""
    if not path.exists():
        return []
    rows = _checked(lambda data: list(data["layers"]), _read_json(path), path)
    return [_checked(make, row, f"{path}, layer #{number}") for number, row in enumerate(rows)]


def _read_idle_share(path: epath.Path) -> float | None:
    return _checked(lambda row: float(row["idle_share"]), _read_json(path), path) if path.exists() else None


def _checked(make: Callable[[Any], Any], row: Any, where: object) -> Any:
    """`make(row)`, or one line on what the row lacks."""
    try:
        return make(row)
    except KeyError as error:
        raise WorkdirError(f"{where} is damaged: it has no {error.args[0]!r}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise WorkdirError(f"{where} is damaged: {error}") from None


def _baseline(row: Mapping[str, Any], anchors: tuple[str, ...]) -> Layer:
    _check_outcome(row["outcome"], row["scores"], anchors)
    return Layer(
        title=layer_title(row["name"]),
        graph=Graph.from_json(row["graph"]),
        equation=str(row["equation"]),
        scores=dict(row["scores"]),
        outcome=row["outcome"],
        figure=dict(row["figure"]),
    )


def _check_outcome(name: Any, scores: Mapping[str, float], anchors: tuple[str, ...]) -> None:
    if name not in OUTCOMES:
        raise UserError(f"unknown outcome {name!r}; known: {', '.join(OUTCOMES)}")
    if name == "accepted" and set(scores) != set(anchors):
        raise UserError(f"scores of {', '.join(scores) or 'no anchor'}, expected {', '.join(anchors)}")


_SPELLING = {"evonorm": "EvoNorm", "relu": "ReLU", "silu": "SiLU"}


def layer_title(name: str) -> str:
    """The printed name of a layer: `bn_relu` is BN-ReLU, `evonorm_b0` EvoNorm-B0; of a file, its path."""
    if ".json" in name:
        return name
    return "-".join(_SPELLING.get(part, part.upper()) for part in name.split("_"))


def accepted(history: History) -> list[Record]:
    """Candidates that were trained fully, in the order of examination; duplicates of them do not count."""
    return [r for r in history if r.selectable and r.evaluation.duplicate_of is None]


def trained_baselines(search: Search) -> list[Layer]:
    """The baselines that passed the tests."""
    return [layer for layer in search.baselines if layer.outcome == "accepted"]


def score_matrix(scores: Sequence[Mapping[str, float]], anchors: Sequence[str]) -> np.ndarray:
    """Scores by anchor as `[N, K]`, the K anchors in the order given."""
    return np.array([[row[anchor] for anchor in anchors] for row in scores]).reshape(-1, len(anchors))


def front_of(records: Sequence[Record], anchors: Sequence[str]) -> list[int]:
    """Places of the records on the Pareto front; none of none."""
    scores = score_matrix([record.evaluation.scores for record in records], anchors)
    return pareto_front(scores) if len(scores) else []


def top_layers(search: Search) -> list[Layer]:
    """The best `config.top_k` by mean accuracy and the rest of the Pareto front, as in `top_layers.json`."""
    return [
        Layer(
            title=f"candidate {record.index}",
            graph=record.graph,
            equation=str(record.graph),
            scores=record.evaluation.scores,
            pareto=on_front,
            index=record.index,
        )
        for record, on_front in top_records(search.history, search.config["top_k"])
    ]
