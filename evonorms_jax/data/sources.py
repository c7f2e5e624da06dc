"""The two ways to get images by the name of their source: held in memory, or as a stream."""

import difflib
from collections.abc import Callable
from typing import Any

from evonorms_jax.data.embedded import read_mnist5k
from evonorms_jax.data.image_set import ImageData
from evonorms_jax.data.prepared import read_prepared
from evonorms_jax.data.settings import DataSettings
from evonorms_jax.data.stream import Share, Stream
from evonorms_jax.data.synthetic import open_synthetic, read_synthetic
from evonorms_jax.errors import UserError
from evonorms_jax.packages import require

TFDS_PREFIX = "tfds:"
#: Sources without a prefix: `(settings, with_test) -> ImageData`.
SOURCES: dict[str, Callable[[DataSettings, bool], ImageData]] = {
    "cifar10": lambda settings, with_test: read_prepared("cifar10", settings, with_test),
    "mnist5k": read_mnist5k,
    "synthetic": read_synthetic,
}
STREAM_PACKAGES = ("grain", "cv2", "simplejpeg")  # the extra `imagenet`


def load(source: str, *, with_test: bool = False, **fields: Any) -> ImageData:
    """Reads a data set into memory.

    Args:
        source: source as in `DataSettings`, such as `mnist5k`, `synthetic` or `tfds:NAME`.
        with_test: whether the test part is read. A search leaves this alone.
        **fields: further fields of `DataSettings`, such as `train_size`, `image_size`, `data_dir` and `seed`.

    Raises:
        ValueError: unknown source, sizes that do not fit, no image classification data, a damaged file.
        DataNotFoundError: if the data are missing. The message gives the command that prepares them.
    """
    return load_images(DataSettings(source, **fields), with_test=with_test)


def load_images(settings: DataSettings, *, with_test: bool = False) -> ImageData:
    """`load` from the group `data` of a config."""
    settings.check()
    source = settings.source
    if settings.augment != "none":
        raise UserError(f"data.augment={settings.augment} needs data.stream=true")
    if source.startswith(TFDS_PREFIX):
        return read_prepared(source.removeprefix(TFDS_PREFIX), settings, with_test)
    if source.startswith("synthetic:"):
        return read_synthetic(settings, with_test)
    if source not in SOURCES:
        near = difflib.get_close_matches(source, SOURCES, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        names = ", ".join(SOURCES)
        raise UserError(f"unknown data source {source!r}{hint} there are {names} and {TFDS_PREFIX}NAME")
    return SOURCES[source](settings, with_test)


def open_stream(settings: DataSettings, *, order_seed: int = 0, share: Share = Share()) -> Stream:
    """Opens a data set without reading its pictures.

    Training sees a random part of a picture, mirrored or not, and then the policy. Evaluation sees the
    central square. Every picture is converted to three channels.

    Synthetic images measure the throughput of the devices: 256 of them repeat, neither mirrored nor
    augmented, in parts as large as asked for.

    Args:
        settings: `crop` is required.
        order_seed: seed of the order of training, of crops, flips and the policy, at least 0.
        share: part of each batch that this host reads.

    Raises:
        ModuleNotFoundError: if the extra `imagenet` is not installed.
        DataNotFoundError: if the data are missing. The message gives the command that prepares them.
        ValueError: a setting out of range, sizes that do not fit, no image classification data.
    """
    settings.check()
    share.check()
    if settings.crop is None or order_seed < 0:
        raise UserError(f"a stream needs data.crop and a seed from 0, got {settings.crop} and {order_seed}")
    if settings.source.startswith("synthetic"):
        return open_synthetic(settings, share)
    if not settings.source.startswith(TFDS_PREFIX):
        raise UserError(
            f"pictures are streamed from {TFDS_PREFIX}NAME or synthetic:CLASSESx3 only, "
            f"got {settings.source!r}"
        )
    require(STREAM_PACKAGES, "streaming pictures", install="evonorms-jax[imagenet]")
    from evonorms_jax.data.pipeline import open_prepared_stream  # loads these packages

    return open_prepared_stream(settings.source.removeprefix(TFDS_PREFIX), settings, order_seed, share)
