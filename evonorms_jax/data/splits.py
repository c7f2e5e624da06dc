"""Who goes where: the partition of the images of a data set into parts.

N images. The test part is cut first, with a seed of its own: whatever seed and sizes a search and a
later training use, neither can have trained on an image of it.
"""

from typing import NamedTuple

import numpy as np


class Partition(NamedTuple):
    """Indices of the images of each part, int64."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray  # empty where the data set has a test part of its own


def partition(
    count: int,
    *,
    train_size: int | None,
    validation_size: int | None,
    seed: int,
    cut_test: bool,
    labels: np.ndarray | None = None,
    least_validation: int = 1,
) -> Partition:
    """Cuts the indices `0 .. count - 1` into test, validation and train, at random.

    Args:
        count: N.
        train_size: images to train on; None is all that the other parts leave.
        validation_size: images to validate on; None is a tenth of N.
        seed: of everything but the test part.
        cut_test: whether a tenth of N is set aside for testing, whether or not anyone reads it.
        labels: `[N]`; if given, every part holds the classes in their overall proportions.
        least_validation: images; 0 for those who can do without a validation part.

    Raises:
        ValueError: if a size is too small, or there are not enough images.
    """
    tenth = count // 10
    test_size = tenth if cut_test else 0
    validation_size = tenth if validation_size is None else validation_size
    available = count - test_size
    train_size = available - validation_size if train_size is None else train_size
    too_small = train_size < 1 or validation_size < least_validation
    if too_small or train_size + validation_size > available:
        raise ValueError(
            f"train_size={train_size} and validation_size={validation_size}: they must be at least 1 and "
            f"{least_validation}, and both together at most {available}, the images there are"
            + (f" besides {test_size} for the test part" if cut_test else "")
        )
    test, rest = np.split(_shuffled(np.arange(count), labels, (0, 1)), [test_size])
    rest = _shuffled(rest, labels, (seed, 0))
    train = rest[validation_size : validation_size + train_size]
    return Partition(train=train, validation=rest[:validation_size], test=test)


def stratified_order(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A random permutation `[N]` of which every stretch holds the classes in proportion.

    Within its class, an image gets a random rank r and the place (r + u) / n in [0, 1), n the size
    of the class and u uniform in [0, 1); all are then sorted by place.
    """
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks = generator.permutation(len(members))
        places[members] = (ranks + generator.random(len(members))) / len(members)
    return np.argsort(places)


def _shuffled(indices: np.ndarray, labels: np.ndarray | None, entropy: tuple[int, int]) -> np.ndarray:
    generator = np.random.default_rng(np.random.SeedSequence(entropy))
    if labels is None:
        return generator.permutation(indices)
    return indices[stratified_order(labels[indices], generator)]
