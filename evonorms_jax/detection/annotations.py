"""Annotations in COCO's format: the file of a split, checked, as records of its images and objects.

Boxes are (y0, x0, y1, x1) in original pixels, while the file has (x, y, width, height).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from etils import epath

from evonorms_jax.data import DataNotFoundError
from evonorms_jax.errors import UserError

Json = dict[str, Any]
#: Polygons, float32 `[2 n]` each as x0, y0, x1, y1, ..., or a run-length code with `size` and `counts`.
Segmentation = Sequence[np.ndarray] | Json
_LEAST_POLYGON = 6  # numbers of a triangle
_KEYS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "iscrowd"),
    "categories": ("id", "name"),
}


class Categories(NamedTuple):
    """The categories of a data set, and the class of each, which a detector predicts.

    Attributes:
        ids: category ids of the file, in ascending order. They may have gaps.
        names: their names.
        raw: whether the class of a category is its id, instead of its place from 1 on.
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    raw: bool = False

    @property
    def classes(self) -> tuple[int, ...]:
        """The class of each category, at least 1. Class 0 is the background."""
        return self.ids if self.raw else tuple(range(1, len(self.ids) + 1))

    @property
    def num_classes(self) -> int:
        """K, the largest class."""
        return self.classes[-1]

    def class_of(self) -> dict[int, int]:
        """Class by category id."""
        return dict(zip(self.ids, self.classes, strict=True))

    def id_of(self) -> dict[int, int]:
        """Category id by class."""
        return dict(zip(self.classes, self.ids, strict=True))

    def to_json(self) -> dict[str, str]:
        """Class and name by category id, such as `{"18": "17 dog"}`, as content for JSON."""
        rows = zip(self.ids, self.classes, self.names, strict=True)
        return {str(number): f"{label} {name}" for number, label, name in rows}


def categories_from(content: Mapping[str, str]) -> Categories:
    """The categories from the content of `Categories.to_json`."""
    rows = sorted((int(number), *text.split(" ", 1)) for number, text in content.items())
    ids, classes, names = zip(*rows, strict=True)
    return Categories(ids, names, raw=ids == tuple(map(int, classes)))


class CocoObject(NamedTuple):
    """One annotated object."""

    box: tuple[float, float, float, float]
    label: int  # class, 1 to K
    crowd: bool
    segmentation: Segmentation


class CocoImage(NamedTuple):
    """One image with its objects."""

    id: int
    file: str  # name within the folder of the split
    height: int
    width: int
    objects: tuple[CocoObject, ...]


def read_annotations(path: epath.Path) -> Json:
    """The content of an annotation file, whose keys, ids and boxes are checked.

    Raises:
        DataNotFoundError: if there is no such file.
        UserError: if it is no annotation file, an id is unknown or comes twice, a mask is missing, or a box
            lies outside its image. The message names the file and the first such annotation.
    """
    if not path.exists():
        raise DataNotFoundError(f"{path} is missing: data in COCO's layout have their annotations there")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is no JSON file: {error}") from None
    for group, keys in _KEYS.items():
        rows = content.get(group) if isinstance(content, dict) else None
        if not isinstance(rows, list):
            raise UserError(f"{path} has no list {group!r}: it must be an instances file of COCO's format")
        for row in rows:
            if lacking := [key for key in keys if key not in row]:
                raise UserError(f"{path}: {group} have no {lacking[0]!r}, as in {str(row)[:100]}")
    if not content["images"] or not content["categories"]:
        raise UserError(f"{path} has no images or no categories")
    _check_objects(path, content)
    return content


def _check_objects(path: epath.Path, content: Json) -> None:
    images = {image["id"]: image for image in content["images"]}
    categories = {category["id"] for category in content["categories"]}
    for rows, known, kind in (
        (content["images"], images, "image"),
        (content["categories"], categories, "category"),
    ):
        if len(rows) != len(known):
            raise UserError(f"{path}: two {kind} entries have the same id")
    for each in content["annotations"]:
        where = f"{path}, annotation {each['id']}"
        if each["image_id"] not in images:
            raise UserError(f"{where}: there is no image with the id {each['image_id']}")
        if each["category_id"] not in categories:
            raise UserError(f"{where}: category_id {each['category_id']} is not among the categories")
        if not each.get("segmentation"):
            raise UserError(f"{where} has no segmentation: a mask is needed for every object")
        x, y, width, height = each["bbox"]
        image = images[each["image_id"]]
        if x >= image["width"] or y >= image["height"] or x + width < 0 or y + height < 0:
            size = f"{image['height']} x {image['width']}"
            raise UserError(f"{where}: bbox {each['bbox']} lies outside its image of {size} pixels")


def categories_of(content: Mapping[str, Any], *, raw: bool = False) -> Categories:
    """The categories of an annotation file. Raises `UserError` for a raw id below 1."""
    found = sorted((row["id"], row["name"]) for row in content["categories"])
    ids, names = zip(*found, strict=True)
    if raw and ids[0] < 1:
        raise UserError(f"raw category ids must be at least 1, got {ids[0]}: class 0 is the background")
    return Categories(ids, names, raw)


def images_of(content: Mapping[str, Any], categories: Categories) -> list[CocoImage]:
    """The images of an annotation file in the order of their ids, with the objects that have a mask."""
    class_of, objects, dropped = categories.class_of(), {}, 0
    for each in content["annotations"]:
        segmentation = _segmentation(each["segmentation"])
        x, y, width, height = map(float, each["bbox"])
        if not segmentation or width <= 0 or height <= 0:
            dropped += 1
            continue
        box = (y, x, y + height, x + width)
        made = CocoObject(box, class_of[each["category_id"]], bool(each["iscrowd"]), segmentation)
        objects.setdefault(each["image_id"], []).append(made)
    if dropped:
        logging.warning("%d objects have an empty box or no valid polygon and are left out", dropped)
    ordered = sorted(content["images"], key=lambda image: image["id"])
    return [
        CocoImage(
            *(image["id"], image["file_name"], int(image["height"]), int(image["width"])),
            tuple(objects.get(image["id"], ())),
        )
        for image in ordered
    ]


def _segmentation(found: Sequence[Sequence[float]] | Json) -> Segmentation:
    if isinstance(found, Mapping):
        return found
    return [np.asarray(one, np.float32) for one in found if len(one) >= _LEAST_POLYGON and not len(one) % 2]
