"""Pareto dominance over the scores of a population: front, sorting into fronts, crowding.

N rows (individuals), K objectives, larger is better. A row dominates another if it is at least as good
everywhere and better somewhere. Equal rows do not dominate each other.
"""

import numpy as np


def dominance(scores: np.ndarray) -> np.ndarray:
    """bool `[N, N]` of scores `[N, K]`: whether row i dominates row j. A row that is not finite dominates
    no row and is dominated by no row."""
    scores = np.asarray(scores, np.float64)
    finite = np.isfinite(scores).all(axis=1)
    at_least = (scores[:, None] >= scores[None]).all(axis=2)
    better = (scores[:, None] > scores[None]).any(axis=2)
    return at_least & better & finite[:, None] & finite[None]


def pareto_front(scores: np.ndarray) -> list[int]:
    """Indices of the rows of `[N, K]` that no other row dominates, ascending.

    Equal rows are all kept. A row that is not finite is never on the front. Rows are compared with the front
    found so far, in descending order of their sum, in which no row comes before one that dominates it. So
    the cost grows with N times the size of the front.
    """
    scores = np.asarray(scores, np.float64)
    finite = np.flatnonzero(np.isfinite(scores).all(axis=1))
    # Rows with the same sum after rounding are put in order by their values: a dominating one comes first.
    order = finite[np.lexsort((*-scores[finite].T[::-1], -scores[finite].sum(axis=1)))]
    front: list[int] = []
    rows = np.empty((len(order), scores.shape[1]))  # the scores of the front
    for index in order.tolist():
        row, best = scores[index], rows[: len(front)]
        if not ((best >= row).all(axis=1) & (best > row).any(axis=1)).any():
            rows[len(front)] = row
            front.append(index)
    return sorted(front)


def front_numbers(scores: np.ndarray) -> np.ndarray:
    """Number of each row's front, int `[N]`: 0 for the Pareto front, 1 for the front without it, and so on.

    Source: the fast non-dominated sort of NSGA-II (Deb et al., 2002), section III.A. Scores must be finite.
    """
    dominates = dominance(scores)
    dominators = dominates.sum(axis=0)
    numbers = np.full(len(dominators), -1)
    number = 0
    while (numbers < 0).any():
        front = (numbers < 0) & (dominators == 0)
        numbers[front] = number
        dominators = dominators - dominates[front].sum(axis=0)
        number += 1
    return numbers


def crowding_distances(scores: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Crowding distance of each row within its front, float64 `[N]`; larger is lonelier.

    For each objective the distance between the two neighbors in the sorted front, as a share of the front's
    range, summed over the objectives. The two ends of each objective have the distance infinity. An objective
    with a range of 0 adds 0 everywhere.

    Source: NSGA-II (Deb et al., 2002), section III.B. Scores must be finite.

    Args:
      scores: `[N, K]`.
      numbers: number of each row's front, `[N]`, from `front_numbers`.
    """
    scores = np.asarray(scores, np.float64)
    distances = np.zeros(len(scores))
    for number in np.unique(numbers):
        front = np.flatnonzero(numbers == number)
        for column in scores[front].T:
            order = np.argsort(column, kind="stable")
            extent = column[order[-1]] - column[order[0]]
            if extent > 0:
                gaps = column[order[2:]] - column[order[:-2]]
                distances[front[order[1:-1]]] += gaps / extent
                distances[front[order[[0, -1]]]] = np.inf
    return distances
