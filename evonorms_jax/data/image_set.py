"""Images held in memory, and the parts of one data set.

N images, H height, W width, C channels. A proxy set is small enough to live in memory as one uint8
array, on the host and on the device; crops, flips and normalisation happen where it is used.
"""

from typing import NamedTuple

import numpy as np

MOMENTS_CHUNK = 1024  # images at a time in float64: 45,000 at once would take more than a gigabyte


class DataNotFoundError(FileNotFoundError):
    """The data are not on this machine; the message says where it looked and what to run."""


class ImageSet(NamedTuple):
    """Images with one label each."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N], 0 to num_classes - 1


class ImageData(NamedTuple):
    """One data set, split; all images have one shape.

    `test` is None unless the caller asked for it: a search cannot look at what it does not hold.
    """

    name: str
    num_classes: int
    train: ImageSet
    validation: ImageSet
    test: ImageSet | None
    mean: np.ndarray  # float32 [C], of the training part, in grey levels from 0 to 255
    std: np.ndarray  # float32 [C], likewise; at least one grey level


class Request(NamedTuple):
    """What a caller of `load` wants; every source takes one and gives `ImageData`."""

    train_size: int | None
    validation_size: int | None
    image_size: int | None
    data_dir: str | None
    seed: int
    with_test: bool


def image_data(
    name: str,
    num_classes: int,
    *,
    train: ImageSet,
    validation: ImageSet,
    test: ImageSet | None,
) -> ImageData:
    """Checks the parts and adds the moments of the training part.

    Raises:
        ValueError: if images are not uint8 `[N, H, W, C]` of one shape, or a label is out of range.
    """
    parts = {"train": train, "validation": validation, "test": test}
    for part, image_set in parts.items():
        if image_set is not None:
            _check(f"{name}, {part} part", image_set, train.images.shape[1:], num_classes)
    mean, std = channel_moments(train.images)
    return ImageData(name, num_classes, train, validation, test, mean, std)


def channel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and biased standard deviation of each channel of uint8 `[N, H, W, C]`, float32 `[C]`
    each.

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
    # The sums are whole numbers below 2^53, hence exact: the difference cannot lose digits or turn
    # negative.
    std = np.sqrt(squares / count - np.square(mean))
    return mean.astype(np.float32), np.maximum(std, 1.0).astype(np.float32)


def _check(where: str, image_set: ImageSet, shape: tuple[int, ...], num_classes: int) -> None:
    images, labels = image_set
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"{where}: images must be uint8 [N, H, W, C], got {images.dtype} {images.shape}")
    if images.shape[1:] != shape:
        raise ValueError(f"{where}: images are {images.shape[1:]}, those of the train part {shape}")
    if labels.dtype != np.int32 or labels.shape != images.shape[:1]:
        raise ValueError(f"{where}: labels must be int32 [{len(images)}], got {labels.dtype} {labels.shape}")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise ValueError(f"{where}: label {wrong[0]} is not in 0 to {num_classes - 1}")
