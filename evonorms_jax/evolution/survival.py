"""Survival: the individuals that form the population, by a named rule.

A new rule is one function `(scores, size) -> indices` and one entry of `SURVIVALS`. It sees the scores of
all selectable candidates so far, oldest first, so the population is a pure function of the history.
"""

from collections.abc import Callable

import numpy as np

from evonorms_jax.evolution.fronts import crowding_distances, front_numbers


def aging(scores: np.ndarray, size: int) -> np.ndarray:
    """The most recent `size` individuals, whatever their scores, which is the paper's rule.

    Args:
      scores: scores of all candidates, finite, float64 `[N, K]`, oldest first.
      size: the largest population.

    Returns:
      Rows of the survivors, ascending, at most `size`.
    """
    return np.arange(max(0, len(scores) - size), len(scores))


def nsga2(scores: np.ndarray, size: int) -> np.ndarray:
    """The best `size` individuals of all time: fronts in order, the last one thinned out by crowding.

    Among equals the more recent one survives. Arguments and result as `aging`. Costs N^2 K comparisons.

    Source: the replacement of NSGA-II (Deb et al., 2002), section III.C, which applies it generation by
    generation. Here it is applied to all candidates at once, so that no state is carried along.
    """
    numbers = front_numbers(scores)
    order = np.lexsort((-np.arange(len(scores)), -crowding_distances(scores, numbers), numbers))
    return np.sort(order[:size])


#: The rules by the name in `config.evolution.survival`.
SURVIVALS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"aging": aging, "nsga2": nsga2}
