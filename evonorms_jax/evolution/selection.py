"""Selection: a parent from the scores of the whole population, by a named rule.

A new rule is one function `(rng, scores, settings) -> index` and one entry of `SELECTIONS`. `nsga2` is the
worked example of a rule that compares individuals with the whole population. A rule in `COST_AWARE` gets
scores with the cost of the layers as one more objective.
"""

from collections.abc import Callable, Sequence

import numpy as np

from evonorms_jax.evolution.fronts import crowding_distances, front_numbers, pareto_front
from evonorms_jax.search_space import Graph
from evonorms_jax.search_space.cost import layer_cost


def random_of_front(rng: np.random.Generator, scores: np.ndarray, settings) -> int:
    """A uniformly random member of a tournament's Pareto front, which is the paper's rule.

    Source: arXiv 2004.02967, section 3.4.

    Args:
      rng: generator, advanced by the draws.
      scores: scores of the population, finite, float64 `[N, K]` with N above 0.
      settings: an `EvolutionSettings`; `tournament_fraction` is the share of N that enters the tournament.

    Returns:
      Row of the parent.
    """
    members = _tournament(rng, scores, settings)
    front = pareto_front(scores[members])
    return int(members[front[int(rng.integers(len(front)))]])


def best_average(rng: np.random.Generator, scores: np.ndarray, settings) -> int:
    """The best mean score of a tournament. Arguments as `random_of_front`."""
    members = _tournament(rng, scores, settings)
    return int(members[np.argmax(scores[members].mean(axis=1))])


def nsga2(rng: np.random.Generator, scores: np.ndarray, settings) -> int:
    """The winner of two random individuals: the better front, then the larger crowding distance.

    The first one drawn wins a tie. `tournament_fraction` plays no part. Other arguments as
    `random_of_front`.

    Source: the crowded-comparison operator of NSGA-II (Deb et al., 2002), section III.B.
    """
    del settings
    pair = rng.choice(len(scores), min(2, len(scores)), replace=False)
    numbers = front_numbers(scores)
    distances = crowding_distances(scores, numbers)
    return int(min(pair, key=lambda i: (numbers[i], -distances[i])))


def _tournament(rng: np.random.Generator, scores: np.ndarray, settings) -> np.ndarray:
    """Rows of a random share of the population, drawn without replacement."""
    size = max(1, round(settings.tournament_fraction * len(scores)))
    return rng.choice(len(scores), size, replace=False)


def with_cost(scores: np.ndarray, graphs: Sequence[Graph]) -> np.ndarray:
    """The scores `[N, K]` of the graphs with their cost as an objective, float64 `[N, K + 1]`.

    The cost is the number of passes over x in a training step (`search_space.cost`), negative, since larger
    is better. It is beyond the paper.
    """
    passes = [-float(layer_cost(graph).passes) for graph in graphs]
    return np.column_stack([scores, np.reshape(passes, len(graphs))])


#: The rules by the name in `config.evolution.selection`.
SELECTIONS: dict[str, Callable[..., int]] = {
    "pareto": random_of_front,
    "average": best_average,
    "nsga2": nsga2,
    "pareto_cost": random_of_front,
}
#: The rules that select by `with_cost`.
COST_AWARE: tuple[str, ...] = ("pareto_cost",)
