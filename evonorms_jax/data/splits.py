"""Who goes where: orders of the images of a data set, and their partition into parts.

N images. An order is a permutation of `0 .. N - 1`; a partition cuts it. The test part is cut first and the validation
part second, so neither depends on how many images train.
"""

from typing import NamedTuple

import numpy as np


class Partition(NamedTuple):
    """Indices of the images of each part; `test` is empty where the data set has a test part of its own."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def random_order(count: int, seed: int) -> np.ndarray:
    """A random permutation `[count]` of the indices, the same for the same seed."""
    return _generator(seed).permutation(count)


def stratified_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """A random permutation `[N]` in which every stretch holds the classes in their overall proportions.

    Within its class, an image gets a random rank r and the place (r + u) / n in [0, 1), n the size of the class and u
    uniform in [0, 1); all are then sorted by place.
    """
    generator = _generator(seed)
    places = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks = generator.permutation(len(members))
        places[members] = (ranks + generator.random(len(members))) / len(members)
    return np.argsort(places)


def partition(
    order: np.ndarray,
    *,
    train_size: int | None,
    validation_size: int | None,
    cut_test: bool,
) -> Partition:
    """Cuts an order `[N]` into test, validation and train.

    Args:
        order: indices `[N]`.
        train_size: images to train on; None is all that the other parts leave.
        validation_size: images to validate on; None is a tenth of N.
        cut_test: whether a tenth of N is set aside for testing, whether or not anyone reads it.

    Raises:
        ValueError: if a size is not positive, or there are not enough images.
    """
    tenth = len(order) // 10
    test_size = tenth if cut_test else 0
    validation_size = tenth if validation_size is None else validation_size
    available = len(order) - test_size
    train_size = available - validation_size if train_size is None else train_size
    if train_size < 1 or validation_size < 1 or train_size + validation_size > available:
        raise ValueError(
            f"train_size={train_size} and validation_size={validation_size}: each must be at least 1, "
            f"and together at most the {available} images there are"
            + (f" ({test_size} more are kept for the test part)" if cut_test else "")
        )
    test, validation, rest = np.split(order, [test_size, test_size + validation_size])
    return Partition(train=rest[:train_size], validation=validation, test=test)


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, 0]))
