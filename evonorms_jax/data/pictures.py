"""Pictures: decoding and resizing, with Pillow."""

import io

import numpy as np
from PIL import Image, ImageOps

# What Pillow raises for data that are not a picture, or not all of one.
DECODE_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels: Pillow's name for them


def decode(encoded: bytes, channels: int, size: int | None) -> np.ndarray:
    """A PNG or JPEG as uint8 `[H, W, channels]`; H = W = `size` if that is given.

    A file with other channels or 16 bits is converted: photograph collections hold the odd grey-scale
    or CMYK picture.
    """
    with Image.open(io.BytesIO(encoded)) as picture:
        if picture.mode.startswith("I"):
            # 16-bit grey, which Pillow would cut off at 255; newer versions call it I;16, older ones I.
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        picture = picture.convert(MODES[channels])
        return _array(picture if size is None else _fit(picture, size))


def resize(images: np.ndarray, size: int | None) -> np.ndarray:
    """Resizes uint8 `[N, H, W, C]` to `[N, size, size, C]`; None leaves them alone."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    # Pillow has no one-channel arrays of rank 3: [H, W, 1] goes in as [H, W].
    pictures = images[..., 0] if images.shape[-1] == 1 else images
    return np.stack([_array(_fit(Image.fromarray(picture), size)) for picture in pictures])


def _fit(picture: Image.Image, size: int) -> Image.Image:
    # The largest central square, then bilinear with antialiasing: nothing is stretched, nothing
    # padded.
    if picture.size == (size, size):
        return picture
    return ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)


def _array(picture: Image.Image) -> np.ndarray:
    array = np.asarray(picture)
    return array.reshape(*array.shape[:2], -1)
