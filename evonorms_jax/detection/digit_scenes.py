"""Scenes of real digits for instance segmentation, written in COCO's layout. They need no download.

A scene has a coloured ground, one to six of the 5,000 embedded digits at random sizes, places and colours,
some of which hide parts of others, and fragments of strokes, which are no objects. The scenes of the three
splits are made of disjoint digits. Scene n of a split depends on the seed and n alone.
"""

import json
import os
import shutil
from collections.abc import Sequence

import numpy as np
from etils import epath
from PIL import Image

from evonorms_jax.data import DataSettings
from evonorms_jax.data.embedded import read_mnist5k
from evonorms_jax.detection import scene_painting
from evonorms_jax.detection.annotations import Json
from evonorms_jax.detection.outlines import outline
from evonorms_jax.detection.scene_painting import Layer, Scene
from evonorms_jax.detection.segmentation import encode_region
from evonorms_jax.detection.settings import CocoSettings
from evonorms_jax.runs.display import Display
from evonorms_jax.runs.files import absolute

VERSION = 2  # of the scenes. Another one has a folder of its own
DEFAULT_DIR = "~/.cache/evonorms_jax/digit_scenes"
SIZES = (2000, 250, 250)  # scenes of the splits
SPLITS = ("train2017", "val2017", "test2017")
#: Category ids of the digits 0 to 9, with gaps as in COCO.
CATEGORY_IDS = (1, 2, 3, 4, 5, 7, 8, 10, 11, 13)
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

LEAST_AREA = 16  # visible pixels of an object
LEAST_VISIBLE = 0.4  # visible share of an object
QUALITY = 95  # of the JPEGs
MODES = {1: "L", 2: "CMYK"}  # numbers of the scenes that are stored grey and as CMYK, as a few of COCO are


def find_scenes(settings: CocoSettings) -> epath.Path:
    """The folder of the scenes of a seed and of these sizes, which is made if it does not exist.

    It appears whole: another process that makes it at the same time does no harm.

    Raises:
        DataNotFoundError: if the embedded digits are not installed.
    """
    given = (settings.train_size, settings.validation_size, settings.test_size)
    sizes = [size or default for size, default in zip(given, SIZES, strict=True)]
    name = f"digits{VERSION}-seed{settings.seed}-" + "-".join(map(str, sizes))
    folder = absolute(settings.data_dir or DEFAULT_DIR) / name
    if not folder.exists():
        draft = folder.with_name(f"{name}.draft-{os.getpid()}")
        try:
            write_scenes(draft, settings.seed, sizes)
            draft.rename(folder)
        except OSError:
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def write_scenes(root: epath.Path, seed: int, sizes: Sequence[int]) -> None:
    """Writes scenes in COCO's layout, `sizes` of them in each split, and shows the progress."""
    digits = read_mnist5k(DataSettings("mnist5k"), with_test=True)
    parts = (digits.train, digits.validation, digits.test)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    done = 0
    with Display("making digit scenes") as display:
        for number, (split, part, size) in enumerate(zip(SPLITS, parts, sizes, strict=True)):
            (root / split).mkdir(exist_ok=True)
            writer = _Writer(root / split, number)
            for place in range(size):
                rng = np.random.default_rng(np.random.SeedSequence([seed, number, place]))
                writer.add(place, scene_painting.paint(rng, part))
                done += 1
                display.update(completed=done, total=sum(sizes), rows=[("split", split)])
            content = json.dumps(writer.content())
            (root / "annotations" / f"instances_{split}.json").write_text(content)


class _Writer:
    """Writes the pictures of a split and collects their annotations."""

    def __init__(self, folder: epath.Path, number: int):
        self._folder, self._number = folder, number
        self._images: list[Json] = []
        self._annotations: list[Json] = []

    def add(self, place: int, scene: Scene) -> None:
        height, width, _ = scene.image.shape
        identity = 100_000 * (self._number + 1) + 7 * place + 3  # ids are not consecutive, as in COCO
        name = f"{identity:012}.jpg"
        picture = Image.fromarray(scene.image).convert(MODES.get(place, "RGB"))
        picture.save(self._folder / name, "JPEG", quality=QUALITY)
        self._images.append({"id": identity, "file_name": name, "height": height, "width": width})
        for each in objects_of(scene.layers):
            number = len(self._annotations) + 1
            self._annotations.append({"id": number, "image_id": identity, **each})

    def content(self) -> Json:
        categories = [{"id": number, "name": name} for number, name in zip(CATEGORY_IDS, NAMES, strict=True)]
        return {"images": self._images, "annotations": self._annotations, "categories": categories}


def objects_of(layers: Sequence[Layer]) -> list[Json]:
    """The annotations of a scene's layers without ids: those of digits and crowds that stay visible.

    A digit of which no part is hidden, and that has no hole, has polygons. The others have run-length codes.
    """
    found = []
    for place, layer in enumerate(layers):
        hidden = np.logical_or.reduce([above.mask for above in layers[place + 1 :]], initial=False)
        visible = layer.mask & ~hidden
        area, whole = int(visible.sum()), int(layer.mask.sum())
        if layer.label is None or area < max(LEAST_AREA, LEAST_VISIBLE * whole):
            continue
        polygons = None if layer.crowd or area < whole else outline(visible)
        rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        top, left, height, width = rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1
        found.append(
            {
                "category_id": CATEGORY_IDS[layer.label],
                "bbox": [float(value) for value in (left, top, width, height)],
                "area": float(area),
                "iscrowd": int(layer.crowd),
                "segmentation": polygons or encode_region(visible, 0, 0, *visible.shape),
            }
        )
    return found
