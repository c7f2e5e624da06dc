"""What was examined, in order: the truth of a search. The population is a view of it."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from evonorms_jax.errors import UserError
from evonorms_jax.search_space import Graph

#: Outcomes in the order of the tests that give them; all but the last are rejections, and a duplicate has
#: the verdict of its original.
OUTCOMES = ("inert", "duplicate", "batch_dependent", "unstable", "low_quality", "diverged", "accepted")


class Proposal(NamedTuple):
    """A graph to examine, how it came about ("seed", "random", "mutation") and from which indices."""

    graph: Graph
    origin: str
    parents: tuple[int, ...] = ()


class Evaluation(NamedTuple):
    """What examining a graph gave.

    Attributes:
      outcome: one of `OUTCOMES`.
      figure: what decided it, for people: the anchor, the accuracy or norm, the step.
      scores: validation accuracy in [0, 1] by anchor; empty if rejected.
      steps: training steps spent, over all anchors and replicas.
      seconds: of device time spent.
      duplicate_of: index of the original of a duplicate.
      fingerprint: identifies the function that the graph computes.
    """

    outcome: str
    figure: dict[str, Any]
    scores: dict[str, float] = {}  # noqa: RUF012 - a default of a tuple's field, never changed
    steps: int = 0
    seconds: float = 0.0
    duplicate_of: int | None = None
    fingerprint: str = ""

    def to_json(self) -> dict[str, Any]:
        return self._asdict()

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> "Evaluation":
        """Reads what `to_json` wrote; KeyError if a field is missing, others are ignored."""
        return cls(**{field: line[field] for field in cls._fields})


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
        """Whether it may enter selection: it has scores, and all of them are finite."""
        scores = self.evaluation.scores.values()
        return bool(scores) and all(math.isfinite(score) for score in scores)

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
        """Reads what `to_json` wrote.

        Raises:
          ValueError: if it is not such an object.
        """
        try:
            proposal = Proposal(Graph.from_json(line["graph"]), line["origin"], tuple(line["parents"]))
            return cls(line["index"], proposal, Evaluation.from_json(line))
        except (KeyError, TypeError) as error:
            raise UserError(f"not a record of a history: {error!r} in {str(line)[:80]}") from None


class History:
    """Examined candidates in order; only ever appended to."""

    def __init__(self, records: Iterable[Record] = ()):
        self._records: list[Record] = []
        self._originals: dict[str, int] = {}
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
        if record.evaluation.fingerprint:
            self._originals.setdefault(record.evaluation.fingerprint, record.index)

    def original(self, fingerprint: str) -> Record | None:
        """The first record with this fingerprint."""
        index = self._originals.get(fingerprint)
        return None if index is None else self._records[index]

    def population(self, size: int, before: int | None = None) -> list[Record]:
        """The most recent `size` selectable records with an index below `before`, oldest first."""
        chosen = []
        for record in reversed(self._records[:before]):
            if len(chosen) == size:
                break
            if record.selectable:
                chosen.append(record)
        return chosen[::-1]

    def ranked(self) -> list[Record]:
        """Selectable records that are no duplicates, best mean score first, the earlier first of equals."""
        originals = [r for r in self._records if r.selectable and r.evaluation.duplicate_of is None]
        return sorted(originals, key=lambda r: -r.mean_score)
