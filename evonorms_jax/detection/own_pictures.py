"""Draws the detections of a trained detector on a user's own pictures."""

import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from PIL import Image, ImageOps

from evonorms_jax.data.pictures import DECODE_ERRORS
from evonorms_jax.detection import illustrations
from evonorms_jax.detection.annotations import Json, categories_from
from evonorms_jax.detection.evaluation import DETECTIONS, SHOWN_SCORE
from evonorms_jax.detection.paste import results_of
from evonorms_jax.detection.placement import whole
from evonorms_jax.detection.task import Programs, make_programs
from evonorms_jax.detection.types import Detections
from evonorms_jax.errors import UserError
from evonorms_jax.runs.display import Display
from evonorms_jax.runs.files import absolute, write_png, write_whole
from evonorms_jax.runs.workdir import read_config
from evonorms_jax.training.evaluation import restore, training_config
from evonorms_jax.training.mesh import data_mesh, local_rows, put_batch

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_ANY_NUMBER = 1_000_000  # of training images, which only sets the length of an epoch


def draw_folder(
    workdir: epath.PathLike, images: epath.PathLike, out: epath.PathLike, *, best: bool = False
) -> int:
    """Draws the detections on all pictures of a folder and returns their number. The data are not needed.

    Args:
        workdir: work directory of the training of a detector.
        images: folder of the pictures.
        out: folder for a PNG of each picture, and `detections.json` in COCO's results format with the name of
            the picture in each entry.
        best: whether to take the checkpoint with the best validation score instead of the newest.

    Raises:
        UserError: if it is no work directory of a detector, its layer file has changed, it has no checkpoint,
            the folder has no picture, or both folders are the same.
    """
    workdir, images, out = absolute(workdir), absolute(images), absolute(out)
    if images == out:
        raise UserError(f"the drawn pictures need another folder than {images}")
    written = read_config(workdir)
    if "categories" not in written:
        raise UserError(f"{workdir} is no work directory of a detector that was trained")
    files = find_pictures(images)
    config, categories = training_config(workdir), categories_from(written["categories"])
    mesh = data_mesh(jax.local_devices()[:1])
    programs = make_programs(config, categories, _ANY_NUMBER, mesh)
    restored = restore(workdir, programs.state, best=best)
    out.mkdir(parents=True, exist_ok=True)
    results: list[Json] = []
    number = 0
    with Display("drawing detections") as display:
        for number, (file, pixels) in enumerate(_open(files), 1):
            found = _detect(programs, restored.arrays, pixels, number, config.data.canvas, categories.id_of())
            shown = [each for each in found if each["score"] >= SHOWN_SCORE]
            write_png(out / f"{file.name}.png", illustrations.draw(pixels, shown, categories))
            results += [{**each, "file_name": file.name} for each in found]
            display.update(completed=number, total=len(files), rows=[("picture", file.name)])
    write_whole(out / DETECTIONS, json.dumps(results) + "\n")
    return number


def find_pictures(folder: epath.Path) -> list[epath.Path]:
    """The pictures of a folder by their names. Raises `UserError` if there is none."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{folder} has no picture: names must end in {', '.join(SUFFIXES)}")
    return found


def _open(files: list[epath.Path]) -> Iterator[tuple[epath.Path, np.ndarray]]:
    """The pictures upright as uint8 `[H, W, 3]`. A damaged one is reported and left out."""
    for file in files:
        try:
            with file.open("rb") as stream, Image.open(stream) as picture:
                pixels = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        except DECODE_ERRORS as error:
            logging.warning("%s is left out: %s", file, error)
        else:
            yield file, pixels


def _detect(
    programs: Programs, state: Any, pixels: np.ndarray, number: int, side: int, ids: dict[int, int]
) -> list[Json]:
    """The results of one picture."""
    placed = whole(*pixels.shape[:2], side)
    canvas = put_batch(programs.batch.images.sharding.mesh, (placed.image(pixels)[None], placed.size[None]))
    found = Detections(*(values[0] for values in local_rows(programs.detect(state, *canvas))))
    return results_of(found, number, placed.scales, placed.original, ids)
