"""Pictures of detections: masks, boxes and names of objects drawn on an image.

H height, W width of the image in pixels.
"""

import colorsys
from collections.abc import Sequence

import numpy as np
from etils import epath
from PIL import Image, ImageDraw, ImageFont

from evonorms_jax.data import photographs
from evonorms_jax.detection.annotations import Categories, Json
from evonorms_jax.detection.segmentation import decode

_OPACITY = 0.45  # of a mask
_LEAST_SIDE = 480  # of a drawn picture, to which a smaller image is enlarged
_GAP = 8  # pixels between two pictures
_HUE_STEP = 0.381966  # of the golden angle, by which neighbouring classes differ most
_INK, _PAPER = (27, 38, 49), (254, 254, 254)


def draw(image: np.ndarray, entries: Sequence[Json], categories: Categories, title: str = "") -> Image.Image:
    """Draws entries of COCO's results or annotations on an image, the first one on top.

    Args:
        image: uint8 `[H, W, 3]`.
        entries: objects with `category_id`, `bbox`, `segmentation` and, for results, `score`.
        categories: categories of the data.
        title: text above the picture.
    """
    height, width = image.shape[:2]
    factor = max(1, round(_LEAST_SIDE / max(height, width)))
    names = dict(zip(categories.ids, categories.names, strict=True))
    colours = {number: _colour(place) for place, number in enumerate(categories.ids)}
    blended = image.astype(np.float64)
    for each in reversed(entries):
        mask = decode(each["segmentation"], height, width).astype(bool)
        tint = np.array(colours[each["category_id"]], np.float64)
        blended[mask] = (1 - _OPACITY) * blended[mask] + _OPACITY * tint
    large = Image.fromarray(np.round(blended).astype(np.uint8))
    large = large.resize((factor * width, factor * height), Image.Resampling.NEAREST)
    pen, font = ImageDraw.Draw(large), ImageFont.load_default(size=14)
    for each in reversed(entries):
        x, y, wide, high = (factor * value for value in each["bbox"])
        colour = colours[each["category_id"]]
        pen.rectangle((x, y, max(x, x + wide - 1), max(y, y + high - 1)), outline=colour, width=2)
        text = names[each["category_id"]] + (f" {100 * each['score']:.0f} %" if "score" in each else "")
        text += " (crowd)" if each.get("iscrowd") else ""
        left, top, right, bottom = pen.textbbox((x + 2, max(0, y - 17)), text, font=font)
        pen.rectangle((left - 2, top - 2, right + 2, bottom + 2), fill=colour)
        pen.text((x + 2, max(0, y - 17)), text, fill=_INK, font=font)
    return _titled(large, title) if title else large


def open_image(path: epath.Path) -> np.ndarray:
    """A picture as uint8 `[H, W, 3]`. Raises `DamagedPictureError` if it cannot be decoded."""
    return photographs.decode(path.read_bytes())


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side, aligned at the top."""
    return _joined(pictures, across=True)


def below(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures one below the other, aligned on the left."""
    return _joined(pictures, across=False)


def _joined(pictures: Sequence[Image.Image], across: bool) -> Image.Image:
    along, other = (0, 1) if across else (1, 0)
    total = sum(picture.size[along] for picture in pictures) + _GAP * (len(pictures) - 1)
    size = (total, max(picture.size[other] for picture in pictures))
    joined = Image.new("RGB", size if across else size[::-1], _PAPER)
    place = 0
    for picture in pictures:
        joined.paste(picture, (place, 0) if across else (0, place))
        place += picture.size[along] + _GAP
    return joined


def _titled(picture: Image.Image, title: str) -> Image.Image:
    bar = Image.new("RGB", (picture.width, 24), _PAPER)
    ImageDraw.Draw(bar).text((4, 3), title, fill=_INK, font=ImageFont.load_default(size=15))
    framed = Image.new("RGB", (picture.width, picture.height + bar.height), _PAPER)
    framed.paste(bar, (0, 0))
    framed.paste(picture, (0, bar.height))
    return framed


def _colour(place: int) -> tuple[int, ...]:
    hue = place * _HUE_STEP % 1
    return tuple(round(255 * value) for value in colorsys.hls_to_rgb(hue, 0.62, 0.85))
