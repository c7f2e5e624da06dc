"""Which part of a photograph is seen: a random one in training, the central square in evaluation.

H height, W width of the picture, in pixels.
"""

import math
from typing import NamedTuple

import numpy as np

AREA = (0.08, 1.0)  # of the picture
ASPECT = (3 / 4, 4 / 3)  # width / height
TRIES = 10
CENTRAL_SHARE = 0.875  # of the shorter side
PADDING = 32  # pixels


class Box(NamedTuple):
    """A rectangle within a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def scaled(self, old: tuple[int, int], new: tuple[int, int]) -> "Box":
        """The same part, of at least one pixel, where the picture has height and width `new`, not `old`."""
        rows, columns = new[0] / old[0], new[1] / old[1]
        top, left = min(round(self.top * rows), new[0] - 1), min(round(self.left * columns), new[1] - 1)
        height = round((self.top + self.height) * rows) - top
        width = round((self.left + self.width) * columns) - left
        return Box(top, left, max(1, height), max(1, width))


def random_resized(rng: np.random.Generator, height: int, width: int) -> Box:
    """A part of uniform area and log-uniform aspect ratio, at a uniform place, as Inception was trained.

    Where ten such rectangles do not fit into the picture, because it is long and narrow, the largest
    central square.
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
    """The central square of that share of the shorter side."""
    side = max(1, int(share * min(height, width)))
    return Box((height - side + 1) // 2, (width - side + 1) // 2, side, side)


def evaluated_share(size: int) -> float:
    """What of the shorter side is evaluated at `size` pixels: size / (size + 32), at least 87.5 %.

    The first is the rule of the released ResNet and EfficientNet code and gives 87.5 % at 224. Below, it
    would cut ever more away, half of the picture at 32, so there we keep 87.5 %.
    """
    return max(CENTRAL_SHARE, size / (size + PADDING))
