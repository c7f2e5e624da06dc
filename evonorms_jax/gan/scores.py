"""Scores of a set of samples beside the Frechet distance, in float64 on the host.

N samples, D features, K classes. Each score is a function of the set: it does not depend on the order in
which the samples arrive. Where a score cuts or draws from the set, it does so after `arranged`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from evonorms_jax.errors import UserError

_ROWS = 1024  # rows of a matrix of distances at a time


class Spread(NamedTuple):
    """A score over parts of the samples: its mean and its population deviation."""

    mean: float
    deviation: float


def arranged(values: np.ndarray, seed: int) -> np.ndarray:
    """The indices `[N]` of rows `[N, D]` in an order that depends on the rows and the seed alone.

    The rows are sorted by their first columns and then shuffled. Samples that come sorted by class would
    otherwise make each part of them a different distribution.
    """
    order = np.lexsort(np.asarray(values)[:, :2].T)
    return order[np.random.default_rng(seed).permutation(len(order))]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log softmax over the last axis, in float64."""
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def class_score(logits: np.ndarray, *, splits: int = 10, seed: int = 0) -> Spread:
    """exp(mean over x of KL(p(y|x) || p(y))), from 1 to K (Salimans et al. 2016, arXiv 1606.03498).

    p(y) is the mean of a split. On the logits of the Inception network it is the Inception score.

    Args:
      logits: `[N, K]`.
      splits: number of parts with a score of their own, of sizes that differ by at most one.
      seed: seed of the order before the cut.
    """
    if not 1 <= splits <= len(logits):
        raise UserError(f"splits must be from 1 to the number of samples, {len(logits)}, got {splits}")
    log_p = log_softmax(logits)
    scores = []
    for part in np.array_split(arranged(logits, seed), splits):
        chosen = log_p[part]
        p = np.exp(chosen)
        marginal = p.mean(0)
        # A class that no sample has adds 0: its p underflows together with its mean.
        log_marginal = np.log(marginal, where=marginal > 0, out=np.zeros_like(marginal))
        scores.append(np.exp(np.sum(p * (chosen - log_marginal), axis=1).mean()))
    return Spread(float(np.mean(scores)), float(np.std(scores)))


def kernel_distance(
    *, real: np.ndarray, fake: np.ndarray, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> Spread:
    """KID: the squared maximum mean discrepancy with the kernel (x . y / D + 1)^3.

    The estimator is unbiased (Binkowski et al. 2018, arXiv 1801.01401), so that it may be below 0 and has no
    sample floor. It is the mean over subsets drawn without replacement.

    Args:
      real: features `[N, D]`.
      fake: features `[M, D]`.
      subsets: number of pairs of subsets.
      subset_size: samples of a subset, at most N and M.
      seed: seed of the draws.
    """
    size = min(subset_size, len(real), len(fake))
    if size < 2 or subsets < 1:
        raise UserError(f"a kernel distance needs subsets of at least 2, got {subsets} of {size}")
    sets = [np.asarray(each, np.float64) for each in (real, fake)]
    sets = [each[np.lexsort(each[:, :2].T)] for each in sets]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(subsets):
        x, y = (each[rng.choice(len(each), size, replace=False)] for each in sets)
        within = sum((k.sum() - np.trace(k)) / (size * (size - 1)) for k in (_kernel(x, x), _kernel(y, y)))
        found.append(within - 2 * _kernel(x, y).mean())
    return Spread(float(np.mean(found)), float(np.std(found)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    base = x @ y.T / x.shape[1] + 1
    return base * base * base  # 20 times as fast as a power


class Overlap(NamedTuple):
    """How two sets overlap."""

    precision: float  # share of the generated samples within the real set
    recall: float  # share of the real samples within the generated set


def precision_recall(*, real: np.ndarray, fake: np.ndarray, k: int = 3) -> Overlap:
    """Precision and recall by balls of nearest neighbours (Kynkaanniemi et al. 2019, arXiv 1904.06991).

    A sample is within a set if it is in the ball of any member: around it, as far as its k-th neighbour in
    the set.

    Args:
      real: features `[N, D]`.
      fake: features `[M, D]`.
      k: number of the neighbour, itself not counted.
    """
    if min(len(real), len(fake)) <= k:
        raise UserError(f"precision needs more than k = {k} samples, got {len(real)} and {len(fake)}")
    return Overlap(_share_within(real, fake, k), _share_within(fake, real, k))


def _share_within(members: np.ndarray, others: np.ndarray, k: int) -> float:
    # A member is its own nearest neighbour, at place 0.
    radii = np.concatenate(
        [np.partition(rows, k, axis=1)[:, k] for rows in squared_distances(members, members)]
    )
    hits = [np.any(rows <= radii, axis=1) for rows in squared_distances(others, members)]
    return float(np.concatenate(hits).mean())


def squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances `[n, M]` of the rows of x `[N, D]` to those of y `[M, D]`, some rows at a time."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    centre = y.mean(0)  # distances do not change, and fewer digits cancel
    x, y = x - centre, y - centre
    y_squares = np.sum(y * y, 1)
    for start in range(0, len(x), _ROWS):
        rows = x[start : start + _ROWS]
        yield np.maximum(np.sum(rows * rows, 1)[:, None] + y_squares - 2 * rows @ y.T, 0)
