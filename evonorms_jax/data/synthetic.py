"""Made-up images for tests and dry runs: small, deterministic, and learnable by a small net."""

import functools
import itertools
import re
from typing import NamedTuple

import numpy as np

from evonorms_jax.data import stream
from evonorms_jax.data.image_set import ImageData, ImageSet, Request, image_data
from evonorms_jax.data.stream import Batch, Share, Stream
from evonorms_jax.errors import UserError

NUM_CLASSES = 4
CHANNELS = 1
TRAIN_SIZE, VALIDATION_SIZE, TEST_SIZE = 512, 128, 128
IMAGE_SIZE = 16
WAVELENGTH = 5.0  # pixels
CONTRAST = 60.0  # amplitude of the stripes in grey levels
NOISE = 30.0  # standard deviation, likewise
_CHUNK = 32  # images made at a time: in float64, all at once would take gigabytes at 224 x 224
_PARTS = {"train": 1, "validation": 2, "test": 3}


class Kind(NamedTuple):
    """What the images are like."""

    num_classes: int = NUM_CLASSES
    channels: int = CHANNELS


def parse_kind(text: str) -> Kind:
    """The kind that `CLASSESxCHANNELS` names: `1000x3` is as ImageNet.

    Raises:
        ValueError: if it is anything else.
    """
    if not (match := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)):
        raise UserError(f"made-up images are synthetic or synthetic:CLASSESxCHANNELS, not synthetic:{text}")
    return Kind(int(match[1]), int(match[2]))


def read_synthetic(request: Request, kind: Kind = Kind()) -> ImageData:
    """Stripes `[N, 16, 16, channels]`, 512 / 128 / 128 unless sizes are given.

    Raises:
        ValueError: if a size is not positive.
    """
    size = IMAGE_SIZE if request.image_size is None else request.image_size
    train_size = TRAIN_SIZE if request.train_size is None else request.train_size
    validation_size = VALIDATION_SIZE if request.validation_size is None else request.validation_size
    return image_data(
        "synthetic",
        kind.num_classes,
        train=part("train", train_size, size, kind, request.seed),
        validation=part("validation", validation_size, size, kind, request.seed),
        test=part("test", TEST_SIZE, size, kind, request.seed) if request.with_test else None,
    )


def part(name: str, count: int, size: int, kind: Kind, seed: int) -> ImageSet:
    """So many images of "train", "validation" or "test"; errors as `stripes`.

    A generator for each part: its images do not depend on the size of the other parts.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, _PARTS[name]]))
    return stripes(rng, count, size=size, channels=kind.channels, num_classes=kind.num_classes)


def stripes(
    rng: np.random.Generator,
    count: int,
    *,
    size: int = IMAGE_SIZE,
    channels: int = CHANNELS,
    num_classes: int = NUM_CLASSES,
) -> ImageSet:
    """Noisy stripes `[count, size, size, channels]` of random phase; the class is the direction.

    Class k runs at 90° * k / num_classes. The phase makes a class invisible to the mean image, as
    in real pictures; directions stop short of 90° so that a mirrored image, 180° minus its
    direction, never falls into another class.

    Raises:
        ValueError: if a size is not positive.
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


POOL = 256  # images of a part that differ, 38 MB at 224 x 224; they come again and again
STREAM_TRAIN_SIZE = 1_281_167  # with the validation part; as ImageNet has, so that epochs are as long


def open_synthetic(
    kind: Kind,
    *,
    image_size: int,
    eval_size: int,
    train_size: int | None,
    validation_size: int | None,
    seed: int,
    share: Share,
) -> Stream:
    """Image n of a part is number n % 256 of a few, in order and not augmented, at the price of a copy.

    Args:
        kind: classes, and the three channels of every stream.
        image_size: side of the images to train on.
        eval_size: side of the images to evaluate on.
        train_size: images to train on; None is as many as ImageNet has.
        validation_size: images to validate on, None is 128; to test on, there are 128.
        seed: of the images.
        share: of this host.

    Raises:
        ValueError: if the channels are not three, or a size is too small.
    """
    if kind.channels != stream.CHANNELS:
        named = f"synthetic:{kind.num_classes}x{kind.channels}"
        raise UserError(f"pictures are streamed with {stream.CHANNELS} channels, which {named} has not")
    validation_size = VALIDATION_SIZE if validation_size is None else validation_size
    train_size = STREAM_TRAIN_SIZE - validation_size if train_size is None else train_size
    if train_size < 1 or validation_size < 0:
        raise UserError(
            f"train_size={train_size} and validation_size={validation_size}: they must be at least 1 and 0"
        )
    sizes = {"train": train_size, "validation": validation_size, "test": TEST_SIZE}

    @functools.cache
    def pool(part):
        size = image_size if part == "train" else eval_size
        return part(part, min(POOL, sizes[part]), size, kind, seed)

    def read(part, batch_size, number):
        places = share.first(batch_size, number) + np.arange(batch_size // share.hosts)
        images, labels = pool(part)
        chosen = places % len(labels)
        return images[chosen], labels[chosen], (places < sizes[part]).astype(np.float32)

    def train(batch_size, start):
        for number in itertools.count(start):
            yield Batch(*read("train", batch_size, number)[:2])

    def evaluate(part, batch_size):
        for number in range(-(-sizes[part] // batch_size)):
            yield read(part, batch_size, number)

    return Stream(
        "synthetic",
        kind.num_classes,
        sizes,
        image_size=image_size,
        eval_size=eval_size,
        hosts=share.hosts,
        train=train,
        evaluate=evaluate,
    )
