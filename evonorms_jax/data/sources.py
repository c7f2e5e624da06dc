"""The data sets by name."""

import difflib
import functools

from evonorms_jax.data.embedded import read_mnist5k
from evonorms_jax.data.image_set import ImageData, Request
from evonorms_jax.data.synthetic import parse_kind, read_synthetic
from evonorms_jax.data.tfds_source import read_tfds

TFDS_PREFIX = "tfds:"
SYNTHETIC_PREFIX = "synthetic:"
SOURCES = {
    "cifar10": functools.partial(read_tfds, "cifar10"),
    "mnist5k": read_mnist5k,
    "synthetic": read_synthetic,
}


def load(
    source: str,
    *,
    train_size: int | None = None,
    validation_size: int | None = None,
    image_size: int | None = None,
    data_dir: str | None = None,
    seed: int = 0,
    with_test: bool = False,
) -> ImageData:
    """Reads a data set into memory.

    Args:
        source: `mnist5k`, `cifar10`, `synthetic`, `synthetic:CLASSESxCHANNELS` for other than four
            classes and one channel, or `tfds:NAME[/CONFIG][:VERSION]` for any image
            classification set that tensorflow_datasets has prepared as array_record. Where a set
            has no test part, a tenth of it becomes one.
        train_size: images to train on; None is all that the other parts leave.
        validation_size: images to validate on; None is a tenth of all (of `synthetic`, 128).
        image_size: resizes to this side after a central square crop; None keeps the stored size.
        data_dir: folder of tfds; None is $TFDS_DATA_DIR, or else `~/tensorflow_datasets`. Others do
            not look at it.
        seed: from 0; of the split into train and validation; the test part is the same for every seed.
        with_test: whether the test part is read. A search leaves this alone.

    Returns:
        `ImageData`; its `test` is None unless `with_test`.

    Raises:
        ValueError: unknown source, sizes that do not fit, no image classification data.
        DataNotFoundError: the data are not there; the message says what to run.
    """
    request = Request(train_size, validation_size, image_size, data_dir, seed, with_test)
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    if seed < 0:
        raise ValueError(f"data.seed must be at least 0, got {seed}")
    if source.startswith(TFDS_PREFIX):
        return read_tfds(source.removeprefix(TFDS_PREFIX), request)
    if source.startswith(SYNTHETIC_PREFIX):
        return read_synthetic(request, parse_kind(source.removeprefix(SYNTHETIC_PREFIX)))
    if source not in SOURCES:
        near = difflib.get_close_matches(source, SOURCES, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        names = ", ".join(SOURCES)
        raise ValueError(f"unknown data source {source!r}{hint} there are {names} and {TFDS_PREFIX}NAME")
    return SOURCES[source](request)
