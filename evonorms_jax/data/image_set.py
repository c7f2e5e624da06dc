"""Images held in memory: the parts of a data set, their checks, their moments, and how a set is divided.

N images, H height, W width, C channels. A proxy set is small enough to be one uint8 array in memory, on the
host and on the device. It is cropped, mirrored and normalized where it is used.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from evonorms_jax.errors import UserError

MOMENTS_CHUNK = 1024  # images at a time in float64: 45,000 at once would take more than a gigabyte


class DataNotFoundError(FileNotFoundError):
    """The data are not on this machine. The message names the folder and the command that prepares them."""


class ImageSet(NamedTuple):
    """Images with one label each."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N], 0 to num_classes - 1


class ImageData(NamedTuple):
    """One data set in three parts. All images have one shape.

    `test` is None unless the caller asked for it, so that a search cannot look at its test images.
    """

    name: str
    num_classes: int
    train: ImageSet
    validation: ImageSet
    test: ImageSet | None
    mean: np.ndarray  # float32 [C], mean of the training part, in grey levels from 0 to 255
    std: np.ndarray  # float32 [C], its standard deviation; at least one grey level


def image_data(name: str, num_classes: int, read: Callable[[str], ImageSet], with_test: bool) -> ImageData:
    """Reads "train", "validation" and, if asked for, "test", checks them, and adds the training moments.

    Raises `ValueError` if images are not uint8 `[N, H, W, C]` of one shape, or a label is out of range.
    """
    parts = {part: read(part) for part in ("train", "validation", "test")[: 2 + with_test]}
    for part, image_set in parts.items():
        _check(f"{name}, {part} part", image_set, parts["train"].images.shape[1:], num_classes)
    mean, std = channel_moments(parts["train"].images)
    return ImageData(name, num_classes, parts["train"], parts["validation"], parts.get("test"), mean, std)


def _check(where: str, image_set: ImageSet, shape: tuple[int, ...], num_classes: int) -> None:
    images, labels = image_set
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(f"{where}: images must be uint8 [N, H, W, C], got {images.dtype} {images.shape}")
    if images.shape[1:] != shape:
        raise UserError(f"{where}: images are {images.shape[1:]}, those of the train part {shape}")
    if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
        raise UserError(f"{where}: labels must be int32 [{len(images)}], got {labels.dtype} {labels.shape}")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise UserError(f"{where}: label {wrong[0]} is not in 0 to {num_classes - 1}")


def channel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased standard deviation of each channel of uint8 `[N, H, W, C]`, float32 `[C]` each.

    The deviation is at least one grey level, so that a constant channel can be divided by it.
    """
    channels = images.shape[-1]
    total, squares = np.zeros(channels), np.zeros(channels)
    for start in range(0, len(images), MOMENTS_CHUNK):
        values = images[start : start + MOMENTS_CHUNK].reshape(-1, channels).astype(np.float64)
        total += values.sum(axis=0)
        squares += np.square(values).sum(axis=0)
    count = images.size // channels
    mean = total / count
    # The sums are whole numbers below 2^53, hence exact: the difference keeps its digits and its sign.
    std = np.sqrt(squares / count - np.square(mean))
    return mean.astype(np.float32), np.maximum(std, 1.0).astype(np.float32)


# -- Splits


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
    """Divides the indices `0 .. count - 1` into test, validation and train, at random.

    Args:
        count: N.
        train_size: images to train on, by default all that the other parts leave.
        validation_size: images to validate on, by default a tenth of N.
        seed: seed of the division into train and validation. The test part is the same for all seeds.
        cut_test: whether a tenth of N is set aside for testing, read or not.
        labels: class of each image `[N]`; if given, each part holds the classes in their overall proportions.
        least_validation: smallest validation part that the caller accepts.

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
        raise UserError(
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
    of the class and u uniform in [0, 1). All are then sorted by place.
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
