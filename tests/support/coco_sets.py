"""Small data sets in COCO's layout for tests."""

import json

import numpy as np

from evonorms_jax.detection.settings import CocoSettings
from support.data_sets import encode

IDS = (3, 7, 12)  # of the categories, with gaps
NAMES = ("cat", "dog", "kite")


def rectangle(x, y, width, height):
    """A rectangle as polygons of COCO's format."""
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def annotation(number, image_id, box, category=IDS[0], segmentation=None, crowd=0):
    """An annotation with the box x, y, width and height, by default of a rectangle."""
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": crowd,
        "segmentation": rectangle(*box) if segmentation is None else segmentation,
    }


def content(images, annotations, ids=IDS, names=NAMES):
    """Content of an annotation file, from (id, file, height, width) for each image."""
    return {
        "images": [dict(zip(("id", "file_name", "height", "width"), image, strict=True)) for image in images],
        "annotations": list(annotations),
        "categories": [{"id": number, "name": name} for number, name in zip(ids, names, strict=True)],
    }


def write_split(root, split, pictures, annotations, **categories):
    """Writes a split with (id, encoded picture, height, width) for each image, named by its id."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    images = []
    for number, encoded, height, width in pictures:
        (root / split / f"{number}.jpg").write_bytes(encoded)
        images.append((number, f"{number}.jpg", height, width))
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content(images, annotations, **categories)))


def levels(number, height=40, width=60, kind="colour"):
    """A picture of one grey level, by which it is known, as (id, encoded, height, width)."""
    image = np.full((height, width, 3), 8 * number + 4, np.uint8)
    return number, encode(image, kind), height, width


def settings(root, **fields):
    """Settings of a set with training images alone, for small canvases."""
    defaults = {"validation_split": "", "canvas": 32, "slots": 4, "threads": 2}
    return CocoSettings("coco", str(root), **(defaults | fields))
