"""One-dimensional placement: things near where they want to be, and a gap apart."""

from collections.abc import Sequence

import numpy as np


def spread(wanted: Sequence[float], gaps: Sequence[float]) -> np.ndarray:
    """Positions in the given order, the nearest to `wanted` in squares, that keep the gaps.

    With the gaps taken off, the positions must not decrease: isotonic regression, by pooling neighbours that
    are out of order (Ayer et al. 1955).

    Args:
      wanted: `[N]` wanted positions, in any order; the result keeps the order of the arguments.
      gaps: `[N - 1]` least distances between neighbours.

    Returns:
      `[N]` positions, each at least its gap above the one before.
    """
    offsets = np.concatenate([[0.0], np.cumsum(np.asarray(gaps, float))])[: len(wanted)]
    pools: list[tuple[float, int]] = []  # mean of the wanted positions, and how many they are
    for target in np.asarray(wanted, float) - offsets:
        mean, size = float(target), 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    return np.repeat([mean for mean, _ in pools], [size for _, size in pools]) + offsets
