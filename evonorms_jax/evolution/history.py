"""The history of a search: every examined candidate in order, with its evaluation.

The history is the state of a search. Populations, rankings and proposals are functions of it.
"""

import bisect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evonorms_jax.errors import UserError
from evonorms_jax.search_space import Graph


class Outcome(NamedTuple):
    """How the examination of a candidate ended.

    Attributes:
      title: printed name.
      meaning: explanation in a few words.
      light: hexadecimal color in figures on a light page. Each outcome needs its own.
      dark: the same on a dark page.
    """

    title: str
    meaning: str
    light: str
    dark: str


#: Outcomes by the name that files use, in the order of the tests, which is the order of their cost. All but
#: the last are rejections. A duplicate inherits the scores of its original.
OUTCOMES: dict[str, Outcome] = {
    "inert": Outcome("inert", "the output does not depend on x, or is not finite", "#a3adb8", "#66717d"),
    "flat": Outcome("flat", "the output does not vary over space", "#7fb0ad", "#5c8f8c"),
    "duplicate": Outcome("duplicate", "computes the function of an earlier candidate", "#6f86a8", "#8499ba"),
    "batch_dependent": Outcome("batch-dependent", "uses statistics of the batch", "#9068b8", "#b48fdb"),
    "unstable": Outcome("unstable", "gradient norm blows up in the stability test", "#d97a2b", "#e8944b"),
    "low_quality": Outcome("low quality", "learns too little in the first steps", "#d8b02e", "#dcb945"),
    "diverged": Outcome("diverged", "loss not finite in training", "#bf4040", "#e06c67"),
    "accepted": Outcome("accepted", "trained fully on every anchor", "#1d8763", "#45b78f"),
}


class Proposal(NamedTuple):
    """A graph to examine, its origin ("seed", "random" or "mutation") and the indices of its parents."""

    graph: Graph
    origin: str
    parents: tuple[int, ...] = ()


class Evaluation(NamedTuple):
    """The result of examining a graph.

    Attributes:
      outcome: a key of `OUTCOMES`.
      evidence: measurement that decided the outcome, for people: anchor, accuracy or norm, step.
      scores: validation accuracy in [0, 1] by anchor, empty for a rejected candidate.
      steps: training steps spent, over all anchors and replicas.
      seconds: device time spent.
      duplicate_of: index of the original of a duplicate.
      fingerprint: identifier of the function that the graph computes.
      replicas: mean accuracy over the anchors with each seed, empty for a rejected candidate.
    """

    outcome: str
    evidence: dict[str, Any]
    scores: dict[str, float] = {}  # noqa: RUF012 - the default of a tuple's field, never changed
    steps: int = 0
    seconds: float = 0.0
    duplicate_of: int | None = None
    fingerprint: str = ""
    replicas: tuple[float, ...] = ()

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the mean accuracy over the seeds, or None for a single seed."""
        return sample_deviation(self.replicas)

    def to_json(self) -> dict[str, Any]:
        return self._asdict()

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "Evaluation":
        """Reads the output of `to_json`.

        Raises:
          KeyError: if a field is missing. `replicas`, which older versions did not write, may be missing.
            Other keys are ignored.
          ValueError: if the outcome is unknown.
        """
        line = {"evidence": line["figure"], **line} if "figure" in line else line  # its name until 2026-11
        if line["outcome"] not in OUTCOMES:
            raise UserError(f"unknown outcome {line['outcome']!r}; known: {', '.join(OUTCOMES)}")
        fields = {field: line[field] for field in cls._fields if field != "replicas"}
        return cls(**fields, replicas=tuple(line.get("replicas", ())))


class Record(NamedTuple):
    """One examined candidate: its place in the history, the proposal and the evaluation."""

    index: int
    proposal: Proposal
    evaluation: Evaluation

    @property
    def graph(self) -> Graph:
        return self.proposal.graph

    @property
    def selectable(self) -> bool:
        """Whether the candidate may enter selection: it has scores, all finite, and is no duplicate.

        A duplicate would be a second parent with the luck of the first, and would push a distinct function
        out of an aging population.
        """
        scores = self.evaluation.scores.values()
        sound = bool(scores) and all(math.isfinite(score) for score in scores)
        return sound and self.evaluation.duplicate_of is None

    @property
    def mean_score(self) -> float:
        return float(np.mean(list(self.evaluation.scores.values())))

    def to_json(self) -> dict[str, Any]:
        """One line of `history.jsonl`."""
        proposal, evaluation = self.proposal, self.evaluation
        return {
            "index": self.index,
            "origin": proposal.origin,
            "parents": list(proposal.parents),
            "graph": proposal.graph.to_json(),
            "equation": str(proposal.graph),
            **evaluation.to_json(),
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "Record":
        """Reads the output of `to_json`.

        Raises:
          ValueError: if a field is missing or wrong.
        """
        try:
            proposal = Proposal(Graph.from_json(line["graph"]), line["origin"], tuple(line["parents"]))
            return cls(line["index"], proposal, Evaluation.from_json(line))
        except (KeyError, TypeError) as error:
            raise UserError(f"not a record of a history: {error!r} in {str(line)[:80]}") from None


class History:
    """Examined candidates in order. Records are only ever appended.

    A search reads the last selectable records and their scores in every round, so both are kept up to date
    here: a round costs the same after a million candidates.
    """

    def __init__(self, records: Iterable[Record] = ()):
        self._records: list[Record] = []
        self._originals: dict[str, int] = {}
        self._selectable: list[Record] = []
        self._scores: np.ndarray = np.zeros((0, 0))  # [N, K] of the selectable records, with spare rows
        self._steps = [0]  # spent before each record, and by all
        for record in records:
            self.append(record)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __getitem__(self, index: int) -> Record:
        return self._records[index]

    def append(self, record: Record) -> None:
        """Adds the next record.

        Raises:
          ValueError: if its index is not the next one.
        """
        if record.index != len(self._records):
            raise UserError(f"the next record has index {len(self._records)}, got {record.index}")
        self._records.append(record)
        self._steps.append(self._steps[-1] + record.evaluation.steps)
        if record.selectable:
            self._add_scores(list(record.evaluation.scores.values()))
            self._selectable.append(record)
        if record.evaluation.fingerprint:
            self._originals.setdefault(record.evaluation.fingerprint, record.index)

    def steps(self, before: int | None = None) -> int:
        """Steps of training and stability test that the records with an index below `before` have cost."""
        return self._steps[len(self) if before is None else before]

    def original(self, fingerprint: str) -> Record | None:
        """The first record with this fingerprint."""
        index = self._originals.get(fingerprint)
        return None if index is None else self._records[index]

    def _add_scores(self, row: list[float]) -> None:
        count = len(self._selectable)
        if count == len(self._scores):
            grown = np.zeros((max(16, 2 * count), len(row)))
            grown[:count] = self._scores[:, : len(row)] if count else 0
            self._scores = grown
        self._scores[count] = row

    def num_selectable(self, before: int | None = None) -> int:
        """Number of selectable records with an index below `before`."""
        if before is None:
            return len(self._selectable)
        return bisect.bisect_left(self._selectable, before, key=lambda record: record.index)

    def selectable(self, before: int | None = None) -> list[Record]:
        """The selectable records with an index below `before`, oldest first."""
        return self._selectable[: self.num_selectable(before)]

    def selectable_at(self, place: int) -> Record:
        """The selectable record with this place among them, oldest first."""
        return self._selectable[place]

    def scores(self, before: int | None = None) -> np.ndarray:
        """Scores of the selectable records, float64 `[N, K]` for K anchors, `[0, 0]` without records."""
        return self._scores[: self.num_selectable(before)]

    def ranked(self) -> list[Record]:
        """The selectable records, best mean score first, the earlier one first among equals."""
        return sorted(self._selectable, key=lambda record: -record.mean_score)


# -- Numbers and texts


def sample_deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation, or None for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def percent_text(mean: float, deviation: float | None = None) -> str:
    """An accuracy in [0, 1] with its deviation, if there is one, in percent: "89.3 ± 1.4"."""
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def evidence_text(evidence: Mapping[str, Any]) -> str:
    """The evidence for an outcome, such as "anchor resnet_small, accuracy 0.12"."""
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in evidence.items()
    )
