"""The end of a search: its best layers are trained again with fresh seeds and ranked anew.

The best of many noisy scores is a lucky one, so the ranking of the search is biased. The paper trains its ten
best layers again on large networks (arXiv 2004.02967, section 4); `experiments.rerank` does that. Here the
anchors of the search are trained again, with seeds that no candidate has seen, in the programs of the search.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evonorms_jax.evolution.history import sample_deviation
from evonorms_jax.search_space import Graph
from evonorms_jax.search_space.simplify import readable


class RerankedLayer(NamedTuple):
    """A layer that was trained again.

    Attributes:
      name: name of a baseline, "" for a candidate.
      graph: genotype.
      index: index of the candidate, None for a baseline.
      proxy_rank: rank by the score of the search, from 1, None for a baseline.
      scores: validation accuracies in [0, 1] by anchor, one for each fresh seed; 0 where the loss was not
        finite.
    """

    name: str
    graph: Graph
    index: int | None
    proxy_rank: int | None
    scores: dict[str, list[float]]

    @property
    def replicas(self) -> list[float]:
        """Mean accuracy over the anchors with each fresh seed."""
        return np.mean(list(self.scores.values()), axis=0).tolist()

    @property
    def mean(self) -> float:
        """Mean accuracy over the anchors and the fresh seeds."""
        return float(np.mean(self.replicas))

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of `replicas`, or None for a single seed."""
        return sample_deviation(self.replicas)

    def to_json(self) -> dict[str, Any]:
        """One layer of `reranked.json`. The summary is for people and is not read back."""
        summary = {"equation": str(self.graph), "simplified": readable(self.graph)}
        summary |= {"mean": self.mean, "deviation": self.deviation}
        return {**self._asdict(), "graph": self.graph.to_json(), **summary}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "RerankedLayer":
        """Reads the output of `to_json`. Raises `KeyError` or `ValueError` if a field is missing or wrong."""
        fields = {field: row[field] for field in cls._fields}
        return cls(**fields | {"graph": Graph.from_json(row["graph"])})


def to_rerank(candidates: Sequence[tuple[int, Graph]], baselines: Mapping[str, Graph]) -> list[RerankedLayer]:
    """The candidates of a search, as index and graph, best first, then the baselines, without scores."""
    layers = [RerankedLayer("", graph, index, rank, {}) for rank, (index, graph) in enumerate(candidates, 1)]
    return layers + [RerankedLayer(name, graph, None, None, {}) for name, graph in baselines.items()]


def rerank(
    layers: Sequence[RerankedLayer],
    retrain: Callable[[Sequence[Graph]], Sequence[dict[str, list[float]]]],
    size: int,
) -> Iterator[list[RerankedLayer]]:
    """Trains the layers and yields them with their scores, `size` at a time.

    Args:
      layers: layers without scores.
      retrain: function from graphs to the accuracies by anchor with each fresh seed.
      size: number of layers in a call.
    """
    for start in range(0, len(layers), size):
        chunk = layers[start : start + size]
        scores = retrain([layer.graph for layer in chunk])
        yield [layer._replace(scores=of_one) for layer, of_one in zip(chunk, scores, strict=True)]


def ranking(layers: Sequence[RerankedLayer]) -> list[RerankedLayer]:
    """The layers, best mean first, the earlier one first among equals."""
    return sorted(layers, key=lambda layer: -layer.mean)
