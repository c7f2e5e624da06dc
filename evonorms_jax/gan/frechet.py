"""Frechet distance of two sets of features, in float64 on the host.

N samples, D features. The distance of two Gaussians with means m and covariances C (Dowson and Landau 1982;
Heusel et al. 2017, arXiv 1706.08500):

    |m1 - m2|^2 + Tr C1 + Tr C2 - 2 Tr (C1 C2)^(1/2)

With factors `C = F F^T` the last trace is the sum of the singular values of `F1^T F2`. That form is real and
finite for covariances of any rank. The root of the product itself may become complex or NaN by rounding.
"""

from typing import NamedTuple

import numpy as np

from evonorms_jax.errors import UserError


class Moments(NamedTuple):
    """The first two moments of a set of features."""

    count: int  # N
    mean: np.ndarray  # float64 [D]
    covariance: np.ndarray  # float64 [D, D], with N - 1 in the denominator


class Accumulator:
    """Moments of features that arrive in parts of any size, in float64.

    The means and sums of squares of two parts are merged (Chan, Golub and LeVeque 1983), so that neither the
    order nor the size of the parts matters beyond rounding.
    """

    def __init__(self):
        self._count, self._mean, self._scatter = 0, None, None

    def add(self, features: np.ndarray) -> None:
        """Adds features `[n, D]`. Raises `FloatingPointError` if one of them is not finite."""
        features = np.asarray(features, np.float64)
        if not len(features):
            return
        if not np.isfinite(features).all():
            raise FloatingPointError(f"a feature of {len(features)} images is not finite")
        mean = features.mean(0)
        centred = features - mean
        scatter = centred.T @ centred
        if self._count:
            before, total = self._count, self._count + len(features)
            step = mean - self._mean
            scatter += self._scatter + np.outer(step, step) * (before * len(features) / total)
            mean = self._mean + step * (len(features) / total)
        self._count += len(features)
        self._mean, self._scatter = mean, scatter

    def moments(self) -> Moments:
        """The moments of all features so far. Fewer than two samples raise `ValueError`."""
        if self._count < 2:
            raise UserError(f"a covariance needs at least 2 samples, got {self._count}")
        return Moments(self._count, self._mean, self._scatter / (self._count - 1))


def moments_of(features: np.ndarray) -> Moments:
    """The moments of features `[N, D]`; errors as `Accumulator`."""
    accumulator = Accumulator()
    accumulator.add(features)
    return accumulator.moments()


def frechet_distance(first: Moments, second: Moments) -> float:
    """The Frechet distance of two sets, at least 0.

    Raises `ValueError` if they have different numbers of features.
    """
    if first.mean.shape != second.mean.shape:
        sizes = f"{len(first.mean)} and {len(second.mean)}"
        raise UserError(f"a distance needs two sets of the same features, got {sizes}")
    step = first.mean - second.mean
    root = np.linalg.svd(_factor(first.covariance).T @ _factor(second.covariance), compute_uv=False).sum()
    distance = step @ step + np.trace(first.covariance) + np.trace(second.covariance) - 2 * root
    return max(0.0, float(distance))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """F `[D, rank]` with F F^T equal to the covariance.

    Eigenvalues within rounding of 0 are dropped: the root of such a value, 1e-8 of the largest root, would
    count once for each missing dimension.
    """
    values, vectors = np.linalg.eigh(covariance)
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def sample_floor(covariance: np.ndarray, first: int, second: int) -> float:
    """The mean distance of two sets of `first` and `second` samples from one Gaussian.

    To second order in the sampling error, and so for more samples than features. With eigenvalues w of the
    covariance, the means contribute Tr C and the covariances (Tr C + sum over i != j of
    w_i w_j / (w_i + w_j)) / 2, both times 1 / first + 1 / second. The second term is the Bures metric
    (Bhatia, Jain and Lim 2019, arXiv 1712.01504) of the error of a Wishart matrix.
    """
    values = np.linalg.eigvalsh(covariance)
    values = values[values > 0]
    pairs = np.outer(values, values) / np.add.outer(values, values)
    trace = values.sum()
    spread = (trace + pairs.sum() - np.trace(pairs)) / 2
    return float((trace + spread) * (1 / first + 1 / second))
