"""Data sets for detection: a folder in COCO's layout, or scenes of digits that are written in that layout.

B global batch size, b = B / hosts the images of a batch that one host gets.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from etils import epath

from evonorms_jax.data import Share
from evonorms_jax.data.sources import STREAM_PACKAGES
from evonorms_jax.detection.annotations import Categories, Json
from evonorms_jax.detection.settings import DIGITS, CocoSettings
from evonorms_jax.detection.types import EvaluationBatch, TrainingBatch
from evonorms_jax.errors import UserError
from evonorms_jax.packages import require
from evonorms_jax.runs.files import absolute

PACKAGES = (*STREAM_PACKAGES, "pycocotools")  # the extra `coco`
DEFAULT_DIR = "~/coco"


class Truth(NamedTuple):
    """The annotated images of a part.

    Attributes:
        content: content of the annotation file, with the images of the part alone.
        folder: folder of the pictures.
    """

    content: Json
    folder: epath.Path


class CocoStream(NamedTuple):
    """A data set that is read during the training, as a record of functions; `open_coco` makes one.

    Attributes:
        name: name of the data set.
        categories: categories of all parts, and their classes.
        sizes: number of images in "train", "validation" and "test". A part may be empty.
        train_batches: `(batch_size, start=0) -> Iterator[TrainingBatch]`, this host's share, arrays
            `[b, ...]`, of the batches from number `start` on, without end. Batch k does not depend on earlier
            reads or on the number of threads, processes and hosts. Each epoch is a fresh permutation, and the
            next one begins within the same batch.
        eval_batches: `(part, batch_size) -> Iterator[EvaluationBatch]`, this host's share of all images of a
            part, each once. All hosts get the same number of batches. Filling of the last batch and the
            replacement of a damaged picture have weight 0.
        truth: `part -> Truth`.
    """

    name: str
    categories: Categories
    sizes: Mapping[str, int]
    train_batches: Callable[..., Iterator[TrainingBatch]]
    eval_batches: Callable[[str, int], Iterator[EvaluationBatch]]
    truth: Callable[[str], Truth]


def open_coco(settings: CocoSettings, *, order_seed: int = 0, share: Share = Share()) -> CocoStream:
    """Opens a data set for detection: reads the annotations and no picture.

    Args:
        settings: settings of the data. Digit scenes that do not exist yet are made.
        order_seed: seed of the order of training, of scales, places and flips, at least 0.
        share: part of each batch that this host reads.

    Raises:
        ModuleNotFoundError: if the extra `coco` is not installed.
        DataNotFoundError: if the data are missing. The message has the path where they are expected.
        UserError: a setting out of range, or annotations that cannot be used.
    """
    settings.check()
    share.check()
    if order_seed < 0:
        raise UserError(f"the seed of the order must be at least 0, got {order_seed}")
    require(PACKAGES, "detection", install="evonorms-jax[coco]")
    from evonorms_jax.detection.reader import open_folder  # loads these packages

    return open_folder(find_folder(settings), settings, order_seed, share)


def find_folder(settings: CocoSettings) -> epath.Path:
    """The folder in COCO's layout that settings name. Digit scenes that do not exist yet are made."""
    if settings.source != DIGITS:
        return absolute(settings.data_dir or DEFAULT_DIR)
    from evonorms_jax.detection.digit_scenes import find_scenes

    return find_scenes(settings)
