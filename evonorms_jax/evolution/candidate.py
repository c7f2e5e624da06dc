"""A graph on its way through the tests of an evaluator."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evonorms_jax.evolution.executors import Job, TrainedCandidate
from evonorms_jax.evolution.history import Evaluation
from evonorms_jax.search_space import Graph


class Candidate:
    """The verdict on a graph so far, its trainings, and its cost.

    Attributes:
      graph: graph under examination.
      verdict: outcome and evidence of the first failed test, or None.
      trained: last training by anchor and replica.
      step_seconds: seconds of a step by anchor, in the last training there.
      steps: training steps so far.
      seconds: device time so far.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self.verdict: tuple[str, dict[str, Any]] | None = None
        self.trained: dict[tuple[str, int], TrainedCandidate] = {}
        self.step_seconds: dict[str, float] = {}
        self.steps, self.seconds = 0, 0.0

    def reject(self, outcome: str, evidence: dict[str, Any] | None) -> None:
        """Records the verdict of a test, whose evidence is None for a pass. The first rejection stays."""
        if evidence is not None and self.verdict is None:
            self.verdict = (outcome, evidence)

    def step(self, anchor: str, replica: int) -> int:
        """Number of training steps done on an anchor."""
        trained = self.trained.get((anchor, replica))
        return 0 if trained is None else trained.step

    def job(self, anchor: str, replica: int, stop: int) -> Job:
        trained = self.trained.get((anchor, replica))
        state = None if trained is None else trained.fetch()
        return Job(self.graph, stop, state, self.step_seconds.get(anchor, 0.0), replica)

    def evaluation(self) -> Evaluation:
        if self.verdict is not None:
            return Evaluation(*self.verdict, steps=self.steps, seconds=self.seconds)
        by_anchor: dict[str, list[float]] = {}
        for (anchor, _), trained in sorted(self.trained.items(), key=lambda item: item[0][1]):
            by_anchor.setdefault(anchor, []).append(trained.accuracy)
        scores = {anchor: float(np.mean(accuracies)) for anchor, accuracies in by_anchor.items()}
        replicas = np.mean(list(by_anchor.values()), axis=0).tolist()
        evidence = {"mean_score": float(np.mean(list(scores.values())))}
        return Evaluation("accepted", evidence, scores, self.steps, self.seconds, replicas=tuple(replicas))


def running(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.verdict is None]
