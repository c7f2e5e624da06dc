"""Photographs: the part of a picture that is seen, and the decoding of that part from a JPEG or PNG.

Training sees a random part, evaluation the central square. H height, W width of the picture, in pixels.
Decoding needs cv2 and simplejpeg of the extra `imagenet`, which the functions that need them import.
"""

import io
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from evonorms_jax.data import pictures
from evonorms_jax.errors import UserError

AREA = (0.08, 1.0)  # range of a random part's share of the picture
ASPECT = (3 / 4, 4 / 3)  # range of width / height
TRIES = 10
CENTRAL_SHARE = 0.875  # smallest share of the shorter side that is evaluated
PADDING = 32  # pixels
JPEG_START = b"\xff\xd8"
# libjpeg-turbo has fast code for 1/2, 1/4 and 1/8. A 500 x 375 photograph takes 1.6 ms at full size, 1.4 ms
# at 1/2, and at least 2 ms at 5/8 or 7/8.
MIN_REDUCTION = 2


# -- Parts


class Box(NamedTuple):
    """A rectangle within a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def scaled(self, old: tuple[int, int], new: tuple[int, int]) -> "Box":
        """The same part, of at least one pixel, in a picture resized from height and width `old` to `new`."""
        rows, columns = new[0] / old[0], new[1] / old[1]
        top, left = min(round(self.top * rows), new[0] - 1), min(round(self.left * columns), new[1] - 1)
        height = round((self.top + self.height) * rows) - top
        width = round((self.left + self.width) * columns) - left
        return Box(top, left, max(1, height), max(1, width))


def random_resized(rng: np.random.Generator, height: int, width: int) -> Box:
    """A part of uniform area and log-uniform aspect ratio, at a uniform place, as Inception was trained.

    If ten such rectangles in a row do not fit into a long and narrow picture, it is the largest central
    square.
    """
    for _ in range(TRIES):
        area = height * width * rng.uniform(*AREA)
        aspect = math.exp(rng.uniform(*np.log(ASPECT)))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 1 <= rows <= height and 1 <= columns <= width:
            top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
            return Box(int(top), int(left), rows, columns)
    return central(1.0, height, width)


def central(share: float, height: int, width: int) -> Box:
    """The central square with `share` of the shorter side."""
    side = max(1, int(share * min(height, width)))
    return Box((height - side + 1) // 2, (width - side + 1) // 2, side, side)


def evaluated_share(size: int) -> float:
    """The share of the shorter side that is evaluated at `size` pixels: size / (size + 32), at least 87.5 %.

    The quotient is the rule of the released ResNet and EfficientNet code and gives 87.5 % at 224. For smaller
    images it would cut away ever more, half of the picture at 32, so 87.5 % is the floor.
    """
    return max(CENTRAL_SHARE, size / (size + PADDING))


# -- Decoding


class DamagedPictureError(UserError):
    """The data are not a picture that can be decoded."""


class _Header(NamedTuple):
    height: int
    width: int
    turbo: bool  # whether libjpeg-turbo may try


def decode_crop(encoded: bytes, choose: Callable[[int, int], Box], size: int) -> np.ndarray:
    """Part of a JPEG or PNG as uint8 RGB `[size, size, 3]`.

    A JPEG is decoded at full size, or at the smallest scale from 1/2 down at which the part is no smaller
    than `size`. The scale moves the part by up to half a pixel. Bilinear resizing follows, as in the released
    ResNet code, which ignores the orientation in EXIF, too.

    Args:
        encoded: content of the file. Grey, palette, CMYK and 16-bit pictures are converted; alpha is dropped.
        choose: function from height and width of the whole picture to the part; called once.
        size: side of the result in pixels.

    Raises:
        DamagedPictureError: if the data cannot be decoded, or end too early.
    """
    header = _header(encoded)
    box = choose(header.height, header.width)
    pixels = _pixels(encoded, header, size / box.height, size / box.width)
    top, left, height, width = box.scaled((header.height, header.width), pixels.shape[:2])
    return resize(pixels[top : top + height, left : left + width], size, size)


def decode(encoded: bytes) -> np.ndarray:
    """A whole JPEG or PNG at full size, uint8 RGB `[H, W, 3]`; conversions and errors as `decode_crop`."""
    return _pixels(encoded, _header(encoded), 1.0, 1.0)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 `[H, W, 3]` to `[height, width, 3]`, bilinear, or by areas far below one half.

    The centre of a pixel has the coordinates (i + 0.5, j + 0.5), so a point moves by the ratio of the sizes.
    """
    import cv2

    if image.shape[:2] == (height, width):
        return image
    # Below one half, bilinear skips pixels; INTER_AREA averages all and takes seven times as long.
    skips = image.shape[0] > 2 * height or image.shape[1] > 2 * width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if skips else cv2.INTER_LINEAR)


def _header(encoded: bytes) -> _Header:
    import simplejpeg

    if encoded[:2] == JPEG_START:
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
            # CMYK photographs may be stored inverted, which Pillow detects.
            return _Header(height, width, turbo=colours not in ("CMYK", "YCCK"))
        except ValueError:
            pass
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            return _Header(picture.height, picture.width, turbo=False)
    except pictures.DECODE_ERRORS as error:
        raise DamagedPictureError(_reason(error)) from error


def _pixels(encoded: bytes, header: _Header, rows: float, columns: float) -> np.ndarray:
    """The picture, uint8 RGB `[H, W, 3]`, at a scale of at least `rows` and `columns`, or at full size."""
    import simplejpeg

    if header.turbo:
        try:
            return simplejpeg.decode_jpeg(
                encoded,
                min_height=min(header.height, math.ceil(header.height * rows)),
                min_width=min(header.width, math.ceil(header.width * columns)),
                min_factor=MIN_REDUCTION,
            )
        except ValueError:
            pass  # some pictures of ImageNet have surplus bytes, which Pillow skips
    try:
        return pictures.decode(encoded, 3, None)
    except pictures.DECODE_ERRORS as error:
        raise DamagedPictureError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "no picture format is known for it"  # Pillow's text names a buffer in memory
    return str(error) or type(error).__name__
