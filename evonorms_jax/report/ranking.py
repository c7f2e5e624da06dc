"""Which candidates of a history stand out: those trained fully, the Pareto front, the best ones."""

from collections.abc import Mapping, Sequence

import numpy as np

from evonorms_jax.evolution.archive import top_records
from evonorms_jax.evolution.history import History, Record
from evonorms_jax.evolution.proposal import pareto_front
from evonorms_jax.report.records import Layer, Search


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
