"""Made-up images for tests and dry runs: small, deterministic, and learnable by a small net."""

import numpy as np

from evonorms_jax.data.image_set import ImageData, ImageSet, Request, image_data

NUM_CLASSES = 4
CHANNELS = 1
TRAIN_SIZE, VALIDATION_SIZE, TEST_SIZE = 512, 128, 128
IMAGE_SIZE = 16
WAVELENGTH = 5.0  # pixels
CONTRAST = 60.0  # amplitude of the stripes in grey levels
NOISE = 30.0  # standard deviation, likewise


def read_synthetic(request: Request) -> ImageData:
    """Stripes `[N, 16, 16, 1]` in four classes, 512 / 128 / 128 unless sizes are given.

    Raises:
        ValueError: if a size is not positive.
    """
    size = IMAGE_SIZE if request.image_size is None else request.image_size

    def part(index, count):
        # One generator for each part: its images do not depend on the size of the other parts.
        rng = np.random.default_rng(np.random.SeedSequence([request.seed, index]))
        return stripes(rng, count, size=size)

    train_size = TRAIN_SIZE if request.train_size is None else request.train_size
    validation_size = VALIDATION_SIZE if request.validation_size is None else request.validation_size
    return image_data(
        "synthetic",
        NUM_CLASSES,
        train=part(1, train_size),
        validation=part(2, validation_size),
        test=part(3, TEST_SIZE) if request.with_test else None,
    )


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
        raise ValueError(
            f"synthetic images: count={count}, size={size}, channels={channels} and "
            f"num_classes={num_classes} must all be at least 1"
        )
    labels = rng.permutation(np.arange(count) % num_classes).astype(np.int32)
    angle = (labels / num_classes * np.pi / 2).reshape(-1, 1, 1, 1)
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1, channels))
    row, column = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    along = row[None, :, :, None] * np.sin(angle) + column[None, :, :, None] * np.cos(angle)
    wave = CONTRAST * np.sin(2 * np.pi / WAVELENGTH * along + phase)
    levels = 128 + wave + rng.normal(0, NOISE, wave.shape)
    return ImageSet(np.clip(levels, 0, 255).astype(np.uint8), labels)
