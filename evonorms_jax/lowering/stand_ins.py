"""Images to compile with: blank ones in the shapes of well-known data sets, so that no data set is needed."""

from typing import NamedTuple

import numpy as np

from evonorms_jax.data import DataSettings, ImageData, ImageSet, load_images
from evonorms_jax.data.synthetic import parse_kind
from evonorms_jax.errors import UserError


class _Known(NamedTuple):
    """Classes, channels, side (None: that of the crop), and images of the training part."""

    classes: int
    channels: int
    side: int | None
    images: int


_IMAGENET = _Known(1000, 3, None, 1_281_167)
_KNOWN = {
    "cifar10": _Known(10, 3, 32, 50_000),
    "tfds:cifar10": _Known(10, 3, 32, 50_000),
    "tfds:cifar100": _Known(100, 3, 32, 50_000),
    "tfds:svhn_cropped": _Known(10, 3, 32, 73_257),
    "tfds:imagenet2012": _IMAGENET,
}


def images_to_compile_with(settings: DataSettings) -> ImageData:
    """Blank images of the shapes and numbers that a config asks for, or the images themselves.

    Args:
      settings: group `data` of a search or a training.

    Raises:
      ValueError: if a setting is wrong, or the shapes of a stream are unknown.
      DataNotFoundError: if the data set is neither well-known nor there.
    """
    settings.check()
    known = _KNOWN.get(settings.source)
    if known is None and not settings.stream:
        return load_images(settings)
    if known is None:
        known = _made_up_stream(settings.source)
    side = settings.image_size or known.side or settings.crop
    validation = known.images // 10 if settings.validation_size is None else settings.validation_size
    train = settings.train_size or known.images - validation
    parts = (_blank(count, side, known.channels) for count in (train, validation))
    mean, std = np.zeros(known.channels, np.float32), np.ones(known.channels, np.float32)
    return ImageData(settings.source, known.classes, *parts, None, mean, std)


def _made_up_stream(source: str) -> _Known:
    """As many pictures as ImageNet has, see `data.open_stream`."""
    prefix = "synthetic:"
    if not source.startswith(prefix):
        raise UserError(
            f"the shapes of data.source={source!r} are unknown without the data: check the config with "
            f"--config.data.source={prefix}CLASSESx3, or with one of {', '.join(_KNOWN)}"
        )
    kind = parse_kind(source)
    return _IMAGENET._replace(classes=kind.num_classes, channels=kind.channels)


def _blank(count: int, side: int, channels: int) -> ImageSet:
    """Images that use no memory."""
    shape = (count, side, side, channels)
    return ImageSet(np.broadcast_to(np.uint8(0), shape), np.broadcast_to(np.int32(0), (count,)))
