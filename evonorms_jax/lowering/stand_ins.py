"""Images to compile with: blank ones in the shapes of well-known data sets, so that no data set is needed."""

from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from evonorms_jax import data
from evonorms_jax.data import ImageData, ImageSet
from evonorms_jax.data.sources import SYNTHETIC_PREFIX
from evonorms_jax.data.synthetic import parse_kind


class _Known(NamedTuple):
    classes: int
    channels: int
    side: int | None  # None where pictures have sizes of their own
    images: int  # of the published training part


_KNOWN = {
    "cifar10": _Known(10, 3, 32, 50_000),
    "tfds:cifar10": _Known(10, 3, 32, 50_000),
    "tfds:cifar100": _Known(100, 3, 32, 50_000),
    "tfds:svhn_cropped": _Known(10, 3, 32, 73_257),
    "tfds:imagenet2012": _Known(1000, 3, None, 1_281_167),
}


def images_to_compile_with(settings: ConfigDict) -> ImageData:
    """Blank images of the shapes and numbers that `config.data` gives, or the images themselves.

    Args:
      settings: `config.data` of a search or a training. The pictures of a stream have the size of the crop.

    Raises:
      ValueError: if the source is unknown or its pictures have no common size.
      DataNotFoundError: if it is not well-known and not there.
    """
    known = _KNOWN.get(settings.source)
    if settings.get("stream", False) and known is None:
        known = _made_up_stream(settings.source)
    if known is None:
        ours = ("source", "train_size", "validation_size", "image_size", "data_dir", "seed")
        return data.load(**{key: settings[key] for key in ours})
    side = settings.image_size or known.side or settings.crop
    validation = known.images // 10 if settings.validation_size is None else settings.validation_size
    train = settings.train_size or known.images - validation
    parts = (_blank(count, side, known.channels) for count in (train, validation))
    mean, std = np.zeros(known.channels, np.float32), np.ones(known.channels, np.float32)
    return ImageData(settings.source, known.classes, *parts, None, mean, std)


def _made_up_stream(source: str) -> _Known:
    """As many pictures as ImageNet has, see `data.open_stream`."""
    if not source.startswith(SYNTHETIC_PREFIX):
        raise ValueError(
            f"the shapes of data.source={source!r} are not known here: check the config with "
            f"--config.data.source={SYNTHETIC_PREFIX}CLASSESx3, or with one of {', '.join(_KNOWN)}"
        )
    kind = parse_kind(source.removeprefix(SYNTHETIC_PREFIX))
    return _KNOWN["tfds:imagenet2012"]._replace(classes=kind.num_classes, channels=kind.channels)


def _blank(count: int, side: int, channels: int) -> ImageSet:
    """Images that take no memory."""
    shape = (count, side, side, channels)
    return ImageSet(np.broadcast_to(np.uint8(0), shape), np.broadcast_to(np.int32(0), (count,)))
