"""Batches for detection from a folder in COCO's layout, through the input pipeline of photographs.

P side of the canvas, M object slots, B global batch size, b = B / hosts. This module needs the extra `coco`.
"""

import functools
from collections.abc import Collection, Sequence

import numpy as np
from etils import epath

from evonorms_jax.data import DataNotFoundError, Share, photographs
from evonorms_jax.data.photographs import DamagedPictureError
from evonorms_jax.data.pipeline import Damage, Samples, batches, filled, shuffled
from evonorms_jax.data.stream import check_part, check_start
from evonorms_jax.detection import placement
from evonorms_jax.detection.annotations import CocoImage, Json, categories_of, images_of, read_annotations
from evonorms_jax.detection.coco import CocoStream, Truth
from evonorms_jax.detection.objects import fill_slots
from evonorms_jax.detection.placement import Placement
from evonorms_jax.detection.settings import CocoSettings
from evonorms_jax.detection.types import EvaluationBatch, TrainingBatch
from evonorms_jax.errors import UserError

_CONSEQUENCES = {"train": "the next one takes its place", "eval": "its objects count as missed"}


def open_folder(root: epath.Path, settings: CocoSettings, order_seed: int, share: Share) -> CocoStream:
    """Opens a folder in COCO's layout; arguments and errors as `coco.open_coco`."""
    splits, categories = {}, None
    for part, (name, size) in settings.splits().items():
        content = read_annotations(_file(root, name))
        found = categories_of(content, raw=settings.raw_ids)
        if found != (categories or found):
            raise UserError(f"{root}: the categories of {name} are not those of {settings.train_split}")
        categories, images = found, images_of(content, found)[:size]
        if part == "train":
            images = _trained(images, root, settings)
        splits[part] = Split(f"{root.name}, {name}", root / name, images, settings.damaged)
    sizes = {part: len(splits.get(part, ())) for part in ("train", "validation", "test")}
    samples = train_samples(splits["train"], settings, order_seed)

    def train_batches(batch_size, start=0):
        share.own(batch_size)
        check_start(start)
        return batches(samples, batch_size, start, share, settings.threads, settings.workers)

    def eval_batches(part, batch_size):
        check_part(root.name, sizes, part)
        share.own(batch_size)
        padded = eval_samples(splits[part], settings.canvas, batch_size)
        return batches(padded, batch_size, 0, share, settings.threads)

    @functools.cache
    def truth(part):
        # Read again, because the annotations of COCO's training part take gigabytes.
        content = read_annotations(_file(root, settings.splits()[part][0]))
        return Truth(_restricted(content, {image.id for image in splits[part].images}), splits[part].folder)

    return CocoStream(root.name, categories, sizes, train_batches, eval_batches, truth)


def _file(root: epath.Path, split: str) -> epath.Path:
    return root / "annotations" / f"instances_{split}.json"


def _restricted(content: Json, ids: Collection[int]) -> Json:
    """The annotations of some images."""
    images = [image for image in content["images"] if image["id"] in ids]
    annotations = [each for each in content["annotations"] if each["image_id"] in ids]
    return content | {"images": images, "annotations": annotations}


def _trained(images: Sequence[CocoImage], root: epath.Path, settings: CocoSettings) -> list[CocoImage]:
    """The images to train on: those with an object that is no crowd, or all."""
    kept = [image for image in images if settings.keep_empty or not all(each.crowd for each in image.objects)]
    if not kept:
        raise UserError(f"{root}: no image of {settings.train_split} has an object to train on")
    return kept


class Split:
    """The images of one part, which are read and decoded one at a time."""

    def __init__(self, name: str, folder: epath.Path, images: Sequence[CocoImage], damaged: str):
        """Takes its name for messages, the folder of the pictures, and the policy for damaged ones.

        Raises `DataNotFoundError` if the first picture is missing.
        """
        self.images = images
        self.folder, self._damaged = folder, damaged
        self._damage = {use: Damage(name, consequence) for use, consequence in _CONSEQUENCES.items()}
        if not (folder / images[0].file).exists():
            raise DataNotFoundError(f"{folder / images[0].file} is missing, which the annotations name")

    def __len__(self) -> int:
        return len(self.images)

    def read(self, order, place: int, use: str) -> tuple[CocoImage, np.ndarray, int]:
        """An image with its pixels uint8 `[H, W, 3]`, and the number of damaged ones that were passed over.

        Args:
            order: function from a place to the number of an image.
            place: first place to try.
            use: "train" or "eval".

        Raises:
            DataNotFoundError: if the picture is missing.
            UserError: if it is damaged and the policy is to refuse, or has another size than annotated.
        """
        (image, pixels), passed_over = self._damage[use].pass_over(self._decode, order, place, len(self))
        return image, pixels, passed_over

    def _decode(self, number: int) -> tuple[CocoImage, np.ndarray]:
        image = self.images[number]
        path = self.folder / image.file
        try:
            pixels = photographs.decode(path.read_bytes())
        except FileNotFoundError:
            raise DataNotFoundError(f"{path} is missing, which the annotations name") from None
        except DamagedPictureError as error:
            kind = DamagedPictureError if self._damaged == "skip" else UserError
            raise kind(f"{path}: {error}") from None
        if pixels.shape[:2] != (image.height, image.width):
            shown, expected = (f"{height} x {width}" for height, width in (pixels.shape[:2], image[2:4]))
            raise UserError(f"{path} has {shown} pixels, and its annotation says {expected}")
        return image, pixels


def train_samples(split: Split, settings: CocoSettings, seed: int) -> Samples[TrainingBatch]:
    """An endless sequence of epochs of images at random scales and places, a batch without its axis each."""

    def sample(order, place, rng):
        image, pixels, _ = split.read(order, place, "train")
        size = image.height, image.width
        placed = placement.jittered(rng, *size, settings.canvas, scale=settings.scale, flip=settings.flip)
        return TrainingBatch(
            placed.image(pixels), placed.size, *fill_slots(image.objects, placed, settings.slots)
        )

    return shuffled(len(split), sample, seed)


def eval_samples(split: Split, side: int, batch_size: int) -> Samples[EvaluationBatch]:
    """Every whole image in order, then the first ones again to fill the last batch."""
    count = len(split)

    def sample(place):
        image, pixels, passed_over = split.read(lambda place: place % count, place, "eval")
        placed = placement.whole(image.height, image.width, side)
        counts = place < count and not passed_over
        return evaluated(image.id, pixels, placed, counts)

    return filled(count, batch_size, sample)


def evaluated(number: int, pixels: np.ndarray, placed: Placement, counts: bool) -> EvaluationBatch:
    """An image `[H, W, 3]` with the id `number` on its canvas, as a batch without its axis."""
    return EvaluationBatch(
        *(placed.image(pixels), placed.size, np.int64(number), placed.scales),
        *(np.array(placed.original, np.int32), np.float32(counts)),
    )
