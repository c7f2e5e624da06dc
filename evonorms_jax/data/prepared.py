"""What tensorflow_datasets has prepared: finding it, and reading its records without TensorFlow.

Only array_record files can be read so. Everything here looks at the folder itself: a builder made
by name would want the code of the data set and, where nothing is prepared, try the network for
minutes.
"""

import difflib
import json
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from evonorms_jax.data import image_set, pictures
from evonorms_jax.data.image_set import DataNotFoundError, ImageData, ImageSet, Request, image_data
from evonorms_jax.errors import UserError

NAME = re.compile(r"(?P<name>\w+)(/(?P<config>[\w.-]+))?(:(?P<version>\d+\.\d+\.\d+))?")
DEFAULT_DIR = "~/tensorflow_datasets"  # tfds's own


class Example(NamedTuple):
    """One example of an image classification."""

    encoded: bytes  # a PNG or JPEG
    label: int


class Prepared(NamedTuple):
    """An image classification set that was found."""

    builder: tfds.core.DatasetBuilder
    shape: tuple[int | None, int | None, int]  # (H, W, C) of the stored images; None: it varies
    num_classes: int
    counts: dict[str, int]  # images of each split

    def records(self, split: str) -> "Records":
        """Raises DataNotFoundError if a file of the split is missing."""
        return Records(self.builder, split)


def open_prepared(name: str, data_dir: str | None) -> Prepared:
    """Finds NAME[/CONFIG][:VERSION], by default the newest readable version.

    Raises:
        DataNotFoundError: if no such array_record data are in the folder.
        ValueError: a malformed name, features that are no image classification, no split `train`.
    """
    builder = tfds.builder_from_directory(_find(name, data_dir))
    shape, num_classes = _classification(name, builder.info.features)
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    if "train" not in counts:
        raise UserError(f"tfds:{name} has no split 'train', only {', '.join(counts)}")
    return Prepared(builder, shape, num_classes, counts)


class Records:
    """The records of a split by their number, from any thread."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        missing = [path for path in builder.info.splits[split].filepaths if not path.exists()]
        if missing:
            raise DataNotFoundError(f"{missing[0]} is missing; dataset_info.json beside it names it")
        # Raw records, of which only two features are decoded: others may need TensorFlow, and tfds's
        # own decoder depends on whether OpenCV is installed.
        self._raw = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        features = {key: builder.info.features[key] for key in ("image", "label")}
        self._features = tfds.features.FeaturesDict(features)
        self.name = f"{builder.info.full_name}, {split}"

    def __getitem__(self, index: int) -> Example:
        return self._parse(self._raw[int(index)])

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """Several at once, in the order asked for."""
        return [self._parse(raw) for raw in self._raw.__getitems__(indices)]

    def _parse(self, raw: bytes) -> Example:
        decoders = {"image": tfds.decode.SkipDecoding()}
        example = self._features.deserialize_example_np(raw, decoders=decoders)
        return Example(example["image"], int(example["label"]))


def _find(name: str, data_dir: str | None) -> epath.Path:
    """The folder of the newest version that can be read."""
    wanted = NAME.fullmatch(name)
    if not wanted:
        raise UserError(f"malformed data set {name!r}: it must be NAME[/CONFIG][:VERSION]")
    root = epath.Path(data_dir or os.environ.get("TFDS_DATA_DIR", DEFAULT_DIR)).expanduser()
    folder = root / wanted["name"]
    if wanted["config"]:
        folder = folder / wanted["config"]
    versions = _subfolders(folder, versions=True)
    matching = [path for path in versions if wanted["version"] in (None, path.name)]
    readable = [path for path in matching if "array_record" in _formats(path)]
    if readable:
        return max(readable, key=lambda path: tfds.core.Version(path.name))
    raise DataNotFoundError(_advice(name, root, versions, replace=bool(matching)))


def _subfolders(folder: epath.Path, *, versions: bool) -> list[epath.Path]:
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.iterdir() if path.is_dir())
    return [path for path in paths if tfds.core.Version.is_valid(path.name) == versions]


def _formats(folder: epath.Path) -> set[str]:
    """The file formats of a prepared version; none if preparing it was not completed."""
    path = folder / "dataset_info.json"
    if not path.exists():
        return set()
    try:
        info = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return {info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])}


def _advice(name: str, root: epath.Path, versions: list[epath.Path], *, replace: bool) -> str:
    """One line: what was looked for where, what is there instead, and what to run."""
    base = NAME.fullmatch(name)["name"]
    line = f"no array_record data of tfds:{name} in {root / base}"
    subfolders = _subfolders(root / base, versions=False)
    configs = [path.name for path in subfolders if _subfolders(path, versions=True)]
    known = tfds.list_builders(with_community_datasets=False)
    if versions:
        found = [f"{path.name} ({'/'.join(_formats(path)) or 'incomplete'})" for path in versions]
        line += f"; there is {', '.join(found)}"
        line += ", which tfds does not replace: move it away first" if replace else ""
    elif configs:
        line += f"; its configs there are {', '.join(configs)}: ask for tfds:{base}/CONFIG"
    elif base not in known and (near := difflib.get_close_matches(base, known, n=1)):
        return f"{line}; did you mean tfds:{near[0]}?"
    # Many builders, cifar10's too, encode pictures with TensorFlow. It pins libraries, so it gets
    # its own environment.
    return (
        f"{line}; to prepare it once, in an environment with `pip install tensorflow-cpu "
        'tensorflow-datasets array_record`, run: python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='{root}', file_format='array_record')"
        '.download_and_prepare()"'
    )


def _classification(
    name: str, features: tfds.features.FeaturesDict
) -> tuple[tuple[int | None, int | None, int], int]:
    """Shape (H, W, C) of the stored images, and the number of classes."""
    fields = dict(features.items())
    image, label = fields.get("image"), fields.get("label")
    is_image = isinstance(image, tfds.features.Image)
    if not is_image or not isinstance(label, tfds.features.ClassLabel):
        found = ", ".join(f"{key}: {type(feature).__name__}" for key, feature in fields.items())
        raise UserError(
            f"tfds:{name} is no image classification: it needs image: Image and label: ClassLabel, "
            f"and has {found}"
        )
    height, width, channels = image.shape
    if image.np_dtype != np.uint8 or channels not in pictures.MODES:
        raise UserError(
            f"tfds:{name}: images must be uint8 with {', '.join(map(str, pictures.MODES))} "
            f"channels, got {image.np_dtype} with {channels}"
        )
    return (height, width, channels), label.num_classes


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
        raise UserError(f"tfds:{name} has pictures of several sizes: give image_size")
    counts = prepared.counts
    parts = image_set.partition(
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
                raise UserError(
                    f"{records.name}: picture {indices[place]} is damaged: {error}; a training with "
                    "data.stream=true passes over such pictures"
                ) from error
            if image.shape != shape:
                raise UserError(f"{records.name}: {image.shape} image, not {shape}")
            images[place], labels[place] = image, record.label
    return ImageSet(images, labels)
