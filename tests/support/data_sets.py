"""Photographs that show their number, in the formats that collections hold."""

import io

import numpy as np
import simplejpeg
from PIL import Image

# One grey level all over, by which a photograph is known after any crop.
STEP = 8  # grey levels between numbers; JPEG moves a level by one or two
RARE = ("grey", "cmyk", "palette", "alpha", "sixteen_bits", "surplus")


def photograph(number, kind="colour"):
    """An encoded picture of a size of its own, with grey level 8 n + 4."""
    height, width = 30 + 11 * number % 37, 30 + 17 * number % 41
    image = np.full((height, width, 3), STEP * number + STEP // 2, np.uint8)
    return encode(image, kind)


def encode(image, kind="colour"):
    """uint8 `[H, W, 3]` in one of the formats that collections of photographs hold; 6 of them are rare."""
    picture = Image.fromarray(image)
    buffer = io.BytesIO()
    if kind == "grey":
        picture.convert("L").save(buffer, "JPEG", quality=95)
    elif kind == "cmyk":
        picture.convert("CMYK").save(buffer, "JPEG", quality=95)
    elif kind == "palette":
        picture.quantize(256).save(buffer, "PNG")
    elif kind == "alpha":
        picture.putalpha(77)
        picture.save(buffer, "PNG")
    elif kind == "sixteen_bits":
        Image.fromarray(image[..., 0].astype(np.uint16) * 257).save(buffer, "PNG")
    else:
        return _jpeg(image, kind)
    return buffer.getvalue()


def _jpeg(image, kind):
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95)
    middle = len(encoded) - 12
    # Surplus bytes before the end marker, of which libjpeg warns, or not the whole picture.
    return {
        "colour": encoded,
        "surplus": encoded[:-2] + b"\x00\x01\x02" + encoded[-2:],
        "truncated": encoded[:middle],
    }[kind]


def numbers(images):
    """The numbers that photographs show, from any part of them `[B, P, P, 3]`."""
    levels = images.reshape(len(images), -1).astype(float)
    assert levels.std(1).max() < 2
    return np.round((levels.mean(1) - STEP // 2) / STEP).astype(int)


def examples(count, kinds=None, label=lambda number: number % 3):
    """Photographs 0 to count - 1 with their labels; `kinds` names those that are not ordinary JPEGs."""
    kinds = kinds or {}
    return [(photograph(number, kinds.get(number, "colour")), label(number)) for number in range(count)]
