"""Data sets that tensorflow_datasets has prepared: finds them, divides them, reads their records.

Only array_record files can be read without TensorFlow. This module looks at the folder itself, since a
builder made by name needs the code of the data set and, where the data are missing, tries the network for
minutes.
"""

import bisect
import difflib
import itertools
import json
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from evonorms_jax.data import image_set, pictures
from evonorms_jax.data.image_set import DataNotFoundError, ImageData, ImageSet, image_data
from evonorms_jax.data.settings import DataSettings
from evonorms_jax.errors import UserError

NAME = re.compile(r"(?P<name>\w+)(/(?P<config>[\w.-]+))?(:(?P<version>\d+\.\d+\.\d+))?")
DEFAULT_DIR = "~/tensorflow_datasets"  # the default of tfds
RECORDS_CHUNK = 1024  # encoded images held at a time


# -- Records


class Example(NamedTuple):
    """One example of an image classification."""

    encoded: bytes  # a PNG or JPEG
    label: int


class Records:
    """The records of a split by their number, from any thread. The name is for messages."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        """Opens no file yet. Raises `DataNotFoundError` if one is missing."""
        info = builder.info.splits[split]
        self._files = list(info.filepaths)
        missing = [path for path in self._files if not path.exists()]
        if missing:
            raise DataNotFoundError(f"{missing[0]} is missing; dataset_info.json beside it names it")
        self._ends = list(itertools.accumulate(info.shard_lengths))  # numbers of records, file by file
        # Raw records, of which only two features are decoded: others may need TensorFlow, and tfds's
        # own decoder depends on whether OpenCV is installed.
        self._raw = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        features = {key: builder.info.features[key] for key in ("image", "label")}
        self._features = tfds.features.FeaturesDict(features)
        self.name = f"{builder.info.full_name}, {split}"

    def __getitem__(self, index: int) -> Example:
        """One record. Raises `ValueError`, which names the file and the record, if its file is damaged."""
        index = int(index)
        # A file that was emptied, zeroed or copied in part makes array_record raise RuntimeError, TypeError
        # or IndexError, and the decoder of the features further kinds.
        try:
            return self._parse(self._raw[index])
        except Exception as error:
            raise UserError(self._damage(index, error)) from error

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """Several records in the order asked for; errors as for one."""
        try:
            return [self._parse(raw) for raw in self._raw.__getitems__(indices)]
        except Exception:
            return [self[index] for index in indices]  # the first damaged one raises the error that names it

    def _parse(self, raw: bytes) -> Example:
        decoders = {"image": tfds.decode.SkipDecoding()}
        example = self._features.deserialize_example_np(raw, decoders=decoders)
        return Example(example["image"], int(example["label"]))

    def _damage(self, index: int, error: Exception) -> str:
        file = self._files[bisect.bisect_right(self._ends, index)]
        # The text of a TypeError or IndexError is about variables of the library.
        reason = f": {str(error).splitlines()[0]}" if isinstance(error, RuntimeError) and str(error) else ""
        return f"{file}: record {index} of {self.name} cannot be read, copy or prepare the file again{reason}"


# -- Data sets


class Part(NamedTuple):
    """Where the images of a part are stored."""

    split: str
    indices: np.ndarray  # int64 [N], numbers of the records in the split


class Prepared(NamedTuple):
    """An image classification set that was found."""

    name: str
    builder: tfds.core.DatasetBuilder
    shape: tuple[int | None, int | None, int]  # (H, W, C) of the stored images; None where it varies
    num_classes: int
    counts: dict[str, int]  # images of each split

    def records(self, split: str) -> Records:
        """The records of a split. Raises `DataNotFoundError` if a file of it is missing."""
        return Records(self.builder, split)

    def parts(
        self, settings: DataSettings, *, validation_size: int | None, least_validation: int
    ) -> dict[str, Part]:
        """The images of "train", "validation" and "test", the same for a search and any training.

        The test part is the published split `test` if it has labels, else `validation` (as of ImageNet and
        Places365, whose `test` has -1 for every label), else a tenth of `train`. The other two parts are cut
        out of `train`, so that choosing by validation never looks at published test images.

        Args:
            settings: the sizes and the seed.
            validation_size: images to validate on, by default a tenth of `train`.
            least_validation: smallest validation part that the caller accepts.

        Raises:
            ValueError: if the sizes do not fit.
        """
        published = next((split for split in ("test", "validation") if self._has_labels(split)), None)
        cut = image_set.partition(
            self.counts["train"],
            train_size=settings.train_size,
            validation_size=validation_size,
            seed=settings.seed,
            cut_test=published is None,
            least_validation=least_validation,
        )
        test = Part("train", cut.test)
        if published is not None:
            test = Part(published, np.arange(self.counts[published]))
        return {"train": Part("train", cut.train), "validation": Part("train", cut.validation), "test": test}

    def _has_labels(self, split: str) -> bool:
        if not self.counts.get(split):
            return False
        try:
            return self.records(split)[0].label >= 0
        except (DataNotFoundError, ValueError):
            return True  # a search needs no test file; whoever reads the split gets this error again


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
    return Prepared(name, builder, shape, num_classes, counts)


def _find(name: str, data_dir: str | None) -> epath.Path:
    """The folder of the newest version that can be read."""
    wanted = NAME.fullmatch(name)
    if not wanted:
        raise UserError(f"malformed data set {name!r}: it must be NAME[/CONFIG][:VERSION]")
    root = epath.Path(data_dir or os.environ.get("TFDS_DATA_DIR", DEFAULT_DIR)).expanduser()
    versions = _subfolders(root / wanted["name"] / (wanted["config"] or ""), versions=True)
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
    """The file formats of a prepared version, the empty set if its preparation was interrupted."""
    path = folder / "dataset_info.json"
    try:
        info = json.loads(path.read_text())
    except FileNotFoundError:
        return set()
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return {info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", [])}


def _advice(name: str, root: epath.Path, versions: list[epath.Path], *, replace: bool) -> str:
    """One line: the data set and folder looked for, the versions that exist, and the command to run."""
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


# -- Reading into memory


def read_prepared(name: str, settings: DataSettings, with_test: bool) -> ImageData:
    """Reads a data set into memory, 6,000 images/s. Only the records that are asked for are read.

    Raises:
        DataNotFoundError, ValueError: as `open_prepared`. A `ValueError` also for sizes that do not fit,
            pictures of several sizes without `image_size`, and a damaged file or picture.
    """
    prepared = open_prepared(name, settings.data_dir)
    height, width, channels = prepared.shape
    if settings.image_size is not None:
        height = width = settings.image_size
    if height is None or width is None:
        raise UserError(f"tfds:{name} has pictures of several sizes: give image_size")
    parts = prepared.parts(settings, validation_size=settings.validation_size, least_validation=1)

    def read(part):
        split, indices = parts[part]
        return _read(prepared.records(split), indices, (height, width, channels), settings.image_size)

    return image_data(name, prepared.num_classes, read, with_test)


def _read(records: Records, indices: np.ndarray, shape: tuple[int, int, int], size: int | None) -> ImageSet:
    """The records at `indices` in that order, as images `shape`, resized if `size` is given."""
    images = np.empty((len(indices), *shape), np.uint8)
    labels = np.empty(len(indices), np.int32)
    for start in range(0, len(indices), RECORDS_CHUNK):
        chunk = indices[start : start + RECORDS_CHUNK].tolist()
        for place, record in enumerate(records.__getitems__(chunk), start):
            try:
                image = pictures.decode(record.encoded, shape[-1], size)
            except pictures.DECODE_ERRORS as error:
                raise UserError(
                    f"{records.name}: picture {indices[place]} is damaged: {error}; a training with "
                    "data.stream=true skips such pictures"
                ) from error
            if image.shape != shape:
                raise UserError(f"{records.name}: {image.shape} image, not {shape}")
            images[place], labels[place] = image, record.label
    return ImageSet(images, labels)
