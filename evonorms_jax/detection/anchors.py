"""Anchors: the boxes of fixed sizes and ratios that proposals are coded relative to.

At level l, whose stride is s = 2^l, there are R anchors at each centre (s / 2 + s i, s / 2 + s j). All have
the area (size s)^2, and the ratio of width to height is that of `ratios`.
Source: Lin et al. 2017 (arXiv 1612.03144), section 4.1. Their centres are those of the released TPU code;
other code has them at s i.
"""

from collections.abc import Sequence

import numpy as np

#: Width over height, in the order of the head's outputs.
RATIOS = (1.0, 2.0, 0.5)


def level_anchors(
    side: int, levels: Sequence[int], size: float, ratios: Sequence[float] = RATIOS
) -> list[np.ndarray]:
    """Anchors float32 `[(side / s)^2 R, 4]` of each level, rows of centres first, ratios fastest.

    Args:
      side: side of the square canvas in pixels, a multiple of the largest stride.
      levels: levels of the pyramid, ascending.
      size: side of a square anchor in strides of its level.
      ratios: R ratios of width to height.

    They may reach beyond the canvas.
    """
    ratios = np.asarray(ratios)
    found = []
    for level in levels:
        stride = 2**level
        centres = stride * (np.arange(side // stride) + 0.5)
        y, x = np.meshgrid(centres, centres, indexing="ij")
        half_height = 0.5 * size * stride / np.sqrt(ratios)
        half_width = 0.5 * size * stride * np.sqrt(ratios)
        y, x = y[..., None], x[..., None]
        corners = [y - half_height, x - half_width, y + half_height, x + half_width]
        found.append(np.stack(corners, -1).reshape(-1, 4).astype(np.float32))
    return found
