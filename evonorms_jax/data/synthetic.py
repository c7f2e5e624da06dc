"""Synthetic images for tests and dry runs, in memory or as a stream.

They are small, deterministic, and a small network can learn them.
"""

import functools
import itertools
import re
from typing import NamedTuple

import numpy as np

from evonorms_jax.data import stream
from evonorms_jax.data.image_set import ImageData, ImageSet, image_data
from evonorms_jax.data.settings import DataSettings
from evonorms_jax.data.stream import Batch, Share, Stream
from evonorms_jax.errors import UserError

NUM_CLASSES = 4
CHANNELS = 1
TRAIN_SIZE, VALIDATION_SIZE, TEST_SIZE = 512, 128, 128
IMAGE_SIZE = 16
WAVELENGTH = 5.0  # pixels
CONTRAST = 60.0  # amplitude of the stripes in grey levels
NOISE = 30.0  # standard deviation in grey levels
POOL = 256  # different images in each part of a stream, 38 MB at 224 x 224; they repeat
STREAM_TRAIN_SIZE = 1_281_167  # ImageNet's training and validation images, so that epochs are as long
_CHUNK = 32  # images made at a time: in float64, all at once would take gigabytes at 224 x 224
_PARTS = {"train": 1, "validation": 2, "test": 3}


class Kind(NamedTuple):
    """Number of classes and of channels."""

    num_classes: int = NUM_CLASSES
    channels: int = CHANNELS


def parse_kind(source: str) -> Kind:
    """The kind that `synthetic` or `synthetic:CLASSESxCHANNELS` names, such as 1000x3 for ImageNet's.

    Raises `ValueError` if the source has another form.
    """
    if source == "synthetic":
        return Kind()
    if not (match := re.fullmatch(r"synthetic:([1-9]\d*)x([1-9]\d*)", source)):
        raise UserError(f"synthetic images are synthetic or synthetic:CLASSESxCHANNELS, not {source}")
    return Kind(int(match[1]), int(match[2]))


def read_synthetic(settings: DataSettings, with_test: bool) -> ImageData:
    """Stripes `[N, 16, 16, channels]`, 512 / 128 / 128 unless sizes are given; errors as `stripes`."""
    kind = parse_kind(settings.source)
    size = IMAGE_SIZE if settings.image_size is None else settings.image_size
    sizes = _sizes(settings, streamed=False)

    def read(part):
        return make_part(part, sizes[part], size=size, kind=kind, seed=settings.seed)

    return image_data("synthetic", kind.num_classes, read, with_test)


def open_synthetic(settings: DataSettings, share: Share) -> Stream:
    """Image n of a part is number n % 256 of a pool, in order and not augmented: a batch costs a copy.

    Args:
        settings: settings with a source of three channels. By default the training part has ImageNet's size.
            The validation part has 128 images by default, and the test part always.
        share: part of each batch that this host reads.

    Raises:
        ValueError: if the channels are not three, or a size is too small.
    """
    kind = parse_kind(settings.source)
    if kind.channels != stream.CHANNELS:
        raise UserError(f"a stream has {stream.CHANNELS} channels, {settings.source} has {kind.channels}")
    sizes = _sizes(settings, streamed=True)
    if sizes["train"] < 1 or sizes["validation"] < 0:
        given = f"train_size={sizes['train']} and validation_size={sizes['validation']}"
        raise UserError(f"{given}: they must be at least 1 and 0")
    eval_size = settings.image_size or settings.crop

    @functools.cache
    def pool(part):
        size = settings.crop if part == "train" else eval_size
        return make_part(part, min(POOL, sizes[part]), size=size, kind=kind, seed=settings.seed)

    def read(part, batch_size, number):
        places = share.first(batch_size, number) + np.arange(share.own(batch_size))
        images, labels = pool(part)
        chosen = places % len(labels)
        return images[chosen], labels[chosen], (places < sizes[part]).astype(np.float32)

    def train_batches(batch_size, start=0):
        share.own(batch_size)
        stream.check_start(start)
        return (Batch(*read("train", batch_size, number)[:2]) for number in itertools.count(start))

    def eval_batches(part, batch_size):
        stream.check_part("synthetic", sizes, part)
        share.own(batch_size)
        return (read(part, batch_size, number) for number in range(-(-sizes[part] // batch_size)))

    return Stream("synthetic", kind.num_classes, sizes, eval_size, train_batches, eval_batches)


def _sizes(settings: DataSettings, *, streamed: bool) -> dict[str, int]:
    validation_size = VALIDATION_SIZE if settings.validation_size is None else settings.validation_size
    default = STREAM_TRAIN_SIZE - validation_size if streamed else TRAIN_SIZE
    train_size = default if settings.train_size is None else settings.train_size
    return {"train": train_size, "validation": validation_size, "test": TEST_SIZE}


def make_part(part: str, count: int, *, size: int, kind: Kind, seed: int) -> ImageSet:
    """The first `count` images of "train", "validation" or "test"; errors as `stripes`.

    Each part has its own generator, so its images do not depend on the sizes of the other parts.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, _PARTS[part]]))
    return stripes(rng, count, size=size, channels=kind.channels, num_classes=kind.num_classes)


def stripes(
    rng: np.random.Generator,
    count: int,
    *,
    size: int = IMAGE_SIZE,
    channels: int = CHANNELS,
    num_classes: int = NUM_CLASSES,
) -> ImageSet:
    """Noisy stripes `[count, size, size, channels]` of random phase. The class is the direction.

    Class k runs at 90° * k / num_classes. The random phase hides a class from the mean image, as in real
    pictures. Directions stay below 90°, so that a mirrored image, at 180° minus its direction, never falls
    into another class. Raises `ValueError` if a size is not positive.
    """
    if min(count, size, channels, num_classes) < 1:
        raise UserError(
            f"synthetic images: count={count}, size={size}, channels={channels} and "
            f"num_classes={num_classes} must all be at least 1"
        )
    labels = rng.permutation(np.arange(count) % num_classes).astype(np.int32)
    angle = (labels / num_classes * np.pi / 2).reshape(-1, 1, 1, 1)
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1, channels))
    row, column = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    images = np.empty((count, size, size, channels), np.uint8)
    for start in range(0, count, _CHUNK):
        some = slice(start, start + _CHUNK)
        along = row[..., None] * np.sin(angle[some]) + column[..., None] * np.cos(angle[some])
        wave = CONTRAST * np.sin(2 * np.pi / WAVELENGTH * along + phase[some])
        levels = 128 + wave + rng.normal(0, NOISE, wave.shape)
        images[some] = np.clip(levels, 0, 255)
    return ImageSet(images, labels)
