"""The place of an image on the square canvas of a detector: resized, mirrored, cut and padded.

P side of the canvas in pixels, H height, W width of the original image. Boxes are (y0, x0, y1, x1).
"""

from typing import NamedTuple

import numpy as np

from evonorms_jax.data import photographs


class Placement(NamedTuple):
    """The way of an image to the canvas.

    Attributes:
        original: H and W.
        resized: height and width after resizing.
        offset: row and column of the resized image at the upper left corner of the canvas.
        flip: whether the resized image is mirrored left to right before it is cut.
        side: P.
    """

    original: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    flip: bool
    side: int

    @property
    def scales(self) -> np.ndarray:
        """Pixels of the canvas for an original pixel along y and x, float32 `[2]`."""
        return np.array([new / old for new, old in zip(self.resized, self.original, strict=True)], np.float32)

    @property
    def size(self) -> np.ndarray:
        """Height and width of the image on the canvas, float32 `[2]`. The rest is filling."""
        return np.minimum(np.subtract(self.resized, self.offset), self.side).astype(np.float32)

    def image(self, image: np.ndarray) -> np.ndarray:
        """The canvas, uint8 `[P, P, 3]`, of an image uint8 `[H, W, 3]`. Filling is 0."""
        resized = photographs.resize(image, *self.resized)
        if self.flip:
            resized = resized[:, ::-1]
        (top, left), (height, width) = self.offset, self.size.astype(int)
        canvas = np.zeros((self.side, self.side, 3), np.uint8)
        canvas[:height, :width] = resized[top : top + height, left : left + width]
        return canvas

    def to_canvas(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes `[N, 4]` in pixels of the canvas, not clipped, from boxes in original pixels."""
        boxes = boxes * np.tile(self.scales.astype(np.float64), 2)
        return self._mirrored(boxes) - np.tile(self.offset, 2)

    def to_original(self, boxes: np.ndarray) -> np.ndarray:
        """The inverse of `to_canvas`."""
        boxes = self._mirrored(boxes + np.tile(self.offset, 2))
        return boxes / np.tile(self.scales.astype(np.float64), 2)

    def _mirrored(self, boxes: np.ndarray) -> np.ndarray:
        if not self.flip:
            return boxes
        width = self.resized[1]
        return np.stack([boxes[:, 0], width - boxes[:, 3], boxes[:, 2], width - boxes[:, 1]], axis=1)


def whole(height: int, width: int, side: int) -> Placement:
    """The whole image, its longer side as long as the canvas, at the upper left: for evaluation."""
    resized = _resized(height, width, side)
    return Placement((height, width), resized, (0, 0), False, side)


def jittered(
    rng: np.random.Generator, height: int, width: int, side: int, *, scale: tuple[float, float], flip: bool
) -> Placement:
    """An image of random scale at a random place, for training.

    The longer side has s P pixels with s uniform in `scale`. Where the image is larger than the canvas, a
    random part of it is seen. With `flip`, half of the images are mirrored.
    """
    resized = _resized(height, width, side * rng.uniform(*scale))
    row, column = (int(rng.integers(max(0, length - side) + 1)) for length in resized)
    mirrored = bool(rng.random() < 0.5)  # drawn in any case, so that places do not depend on `flip`
    return Placement((height, width), resized, (row, column), flip and mirrored, side)


def _resized(height: int, width: int, longer: float) -> tuple[int, int]:
    scale = longer / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
