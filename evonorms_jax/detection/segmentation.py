"""Masks of objects on the host: polygons and run-length codes, whole or in the frame of a box.

A run-length code of H x W pixels counts the pixels of runs of 0 and 1 in turn, column by column, from a run
of 0 on. The centre of the pixel in row i and column j has the coordinates (i + 0.5, j + 0.5).
"""

from collections.abc import Mapping

import numpy as np
from pycocotools import mask as coco_mask

from evonorms_jax.detection.annotations import Json, Segmentation


def encode(segmentation: Segmentation, height: int, width: int) -> Json:
    """The compressed run-length code of a mask, as pycocotools has it."""
    if not isinstance(segmentation, Mapping):
        return coco_mask.merge(coco_mask.frPyObjects([list(one) for one in segmentation], height, width))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return dict(segmentation)


def decode(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """The mask, uint8 `[height, width]` of 0 and 1."""
    return coco_mask.decode(encode(segmentation, height, width))


def in_frame(segmentation: Segmentation, size: tuple[int, int], box: np.ndarray, side: int) -> np.ndarray:
    """The mask in the frame of a box, uint8 `[side, side]` of 0 and 1.

    A pixel of the frame is 1 if its centre lies inside the mask. Polygons are drawn in the frame, so that no
    mask of the whole image is made.

    Args:
        segmentation: mask of the object.
        size: height and width of the image.
        box: float `[4]`, (y0, x0, y1, x1) in pixels of the image, with sides above 0.
        side: side of the frame in pixels.
    """
    if isinstance(segmentation, Mapping):
        whole = decode(segmentation, *size)
        rows, columns = (
            np.clip(_centres(box[axis], box[axis + 2], side), 0, size[axis] - 1) for axis in (0, 1)
        )
        return whole[rows[:, None], columns]
    scale = side / np.array([box[3] - box[1], box[2] - box[0]], np.float64)
    start = np.array([box[1], box[0]], np.float64)
    polygons = [((one.reshape(-1, 2) - start) * scale).ravel().tolist() for one in segmentation]
    return decode(coco_mask.merge(coco_mask.frPyObjects(polygons, side, side)), side, side)


def _centres(low: float, high: float, side: int) -> np.ndarray:
    """The pixels of the image in which the centres of the frame's pixels lie."""
    return np.floor(low + (np.arange(side) + 0.5) * (high - low) / side).astype(int)


def encode_region(region: np.ndarray, top: int, left: int, height: int, width: int) -> Json:
    """The uncompressed run-length code of a mask that is 0 outside a region, at the cost of the region.

    Args:
        region: bool `[h, w]`.
        top: row of the image in which the region begins.
        left: column in which it begins.
        height: H, at least `top + h`.
        width: W, at least `left + w`.
    """
    # Down each column, framed by zeros, a run begins where the mask rises and ends where it falls.
    columns = np.zeros((region.shape[1], region.shape[0] + 2), np.int8)
    columns[:, 1:-1] = region.T
    change = np.diff(columns, axis=1)
    begins, ends = (_places(change == sign, top, left, height) for sign in (1, -1))
    # A run at the bottom of a column and one at the top of the next are one run.
    apart = begins[1:] != ends[:-1]
    begins = begins[np.append(True, apart)] if begins.size else begins
    ends = ends[np.append(apart, True)] if ends.size else ends
    bounds = np.stack([begins, ends], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], bounds, [height * width]]))
    # A run of 0 at the end may have no pixels, and then it is left out, as pycocotools does.
    return {"size": [int(height), int(width)], "counts": counts[: None if counts[-1] else -1].tolist() or [0]}


def _places(found: np.ndarray, top: int, left: int, height: int) -> np.ndarray:
    column, row = np.nonzero(found)
    return (left + column) * height + top + row
