"""Image classification sets prepared by tensorflow_datasets, read into memory."""

import numpy as np

from evonorms_jax.data import pictures, splits
from evonorms_jax.data.image_set import ImageData, ImageSet, Request, image_data
from evonorms_jax.data.prepared import Prepared, open_prepared

RECORDS_CHUNK = 1024  # encoded images held at a time


def read_tfds(name: str, request: Request) -> ImageData:
    """Reads NAME[/CONFIG][:VERSION], by default the newest readable version; 6,000 images/s.

    Train and validation come from the split `train`; test is the split `test`, or a tenth of
    `train` where there is none. Only the records that are asked for are read.

    Raises:
        DataNotFoundError: if no such array_record data are in the folder.
        ValueError: a malformed name, sizes that do not fit, features that are no image
            classification, pictures of several sizes without `image_size`.
    """
    prepared = open_prepared(name, request.data_dir)
    height, width, channels = prepared.shape
    if request.image_size is not None:
        height = width = request.image_size
    if height is None or width is None:
        raise ValueError(f"tfds:{name} has pictures of several sizes: give image_size")
    counts = prepared.counts
    parts = splits.partition(
        counts["train"],
        train_size=request.train_size,
        validation_size=request.validation_size,
        seed=request.seed,
        cut_test="test" not in counts,
    )

    def read(split, indices):
        return _read(prepared, split, indices, (height, width, channels), request.image_size)

    test = None
    if request.with_test and "test" in counts:
        test = read("test", np.arange(counts["test"]))
    elif request.with_test:
        test = read("train", parts.test)
    train, validation = read("train", parts.train), read("train", parts.validation)
    return image_data(name, prepared.num_classes, train=train, validation=validation, test=test)


def _read(
    prepared: Prepared,
    split: str,
    indices: np.ndarray,
    shape: tuple[int, int, int],
    image_size: int | None,
) -> ImageSet:
    """The records of a split at `indices`, in that order."""
    records = prepared.records(split)
    images = np.empty((len(indices), *shape), np.uint8)
    labels = np.empty(len(indices), np.int32)
    for start in range(0, len(indices), RECORDS_CHUNK):
        chunk = indices[start : start + RECORDS_CHUNK].tolist()
        for place, record in enumerate(records.__getitems__(chunk), start):
            try:
                image = pictures.decode(record.encoded, shape[-1], image_size)
            except pictures.DECODE_ERRORS as error:
                raise ValueError(
                    f"{records.name}: picture {indices[place]} is damaged: {error}; a training with "
                    "data.stream=true passes over such pictures"
                ) from error
            if image.shape != shape:
                raise ValueError(f"{records.name}: {image.shape} image, not {shape}")
            images[place], labels[place] = image, record.label
    return ImageSet(images, labels)
