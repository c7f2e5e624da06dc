"""All that the scores need of a set of images, collected in one pass.

N images, D features, K classes.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from evonorms_jax.gan.features import Embedded, Embedder
from evonorms_jax.gan.frechet import Accumulator, Moments

#: Feature vectors of a set that are kept, for scores beyond the moments: 80 MB of 2,048 features.
MOST_KEPT = 10_000


class Collection(NamedTuple):
    """The features of a set of images."""

    moments: Moments  # of all N
    features: np.ndarray  # float32 [at most MOST_KEPT, D], evenly spread over the set
    logits: np.ndarray  # float32 [N, K]


def collect(
    embed: Embedder,
    images: Iterable[np.ndarray],
    count: int,
    *,
    stop: Callable[[], bool] = lambda: False,
    most_kept: int = MOST_KEPT,
) -> Collection | None:
    """Collects the features of images.

    Args:
      embed: network for the features.
      images: uint8 `[n, H, W, C]`, parts of any size.
      count: N, about, which sets the distance of the feature vectors that are kept.
      stop: asked before every batch. If it returns true, the result is None.
      most_kept: number of feature vectors kept.
    """
    accumulator, kept, logits, seen = Accumulator(), [], [], 0
    every = max(1, -(-count // most_kept))
    for part in images:
        for batch in embed.parts(part):
            if stop():
                return None
            accumulator.add(batch.features)
            kept.append(batch.features[-seen % every :: every])
            logits.append(batch.logits)
            seen += len(batch.features)
    return Collection(accumulator.moments(), np.concatenate(kept), np.concatenate(logits))


def collection_of(embedded: Embedded) -> Collection:
    """The collection of features that are all in memory."""
    accumulator = Accumulator()
    accumulator.add(embedded.features)
    return Collection(accumulator.moments(), embedded.features, embedded.logits)
