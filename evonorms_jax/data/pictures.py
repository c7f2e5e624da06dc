"""Pictures: decoding and resizing, with Pillow."""

import io

import numpy as np
from PIL import Image, ImageOps

# Errors of Pillow for data that are no picture, or part of one.
DECODE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels: Pillow's name for them


def decode(encoded: bytes, channels: int, size: int | None) -> np.ndarray:
    """A PNG or JPEG as uint8 `[H, W, channels]`; H = W = `size` if that is given.

    A file with other channels or 16 bits is converted, since collections of photographs contain some grey and
    CMYK pictures.
    """
    with Image.open(io.BytesIO(encoded)) as picture:
        if picture.mode.startswith("I"):
            # 16-bit grey, which Pillow would clip at 255. Newer versions call it I;16, older ones I.
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        picture = picture.convert(MODES[channels])
        return _array(picture if size is None else _fit(picture, size))


def resize(images: np.ndarray, size: int | None) -> np.ndarray:
    """Resizes uint8 `[N, H, W, C]` to `[N, size, size, C]`. None keeps the size."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    # Pillow has no one-channel arrays of rank 3: [H, W, 1] goes in as [H, W].
    pictures = images[..., 0] if images.shape[-1] == 1 else images
    return np.stack([_array(_fit(Image.fromarray(picture), size)) for picture in pictures])


def _fit(picture: Image.Image, size: int) -> Image.Image:
    # The largest central square, then bilinear with antialiasing, without stretching or padding.
    if picture.size == (size, size):
        return picture
    return ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)


def _array(picture: Image.Image) -> np.ndarray:
    array = np.asarray(picture)
    return array.reshape(*array.shape[:2], -1)
