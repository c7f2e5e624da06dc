"""From detections on the canvas to COCO's results: boxes and masks in original pixels.

D detections of an image, m = 28 the side of a mask in the frame of its box, H and W of the original image.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from evonorms_jax.detection.annotations import Json
from evonorms_jax.detection.segmentation import encode_region
from evonorms_jax.detection.types import Detections

THRESHOLD = 0.5  # of the probability of a pixel


def results_of(
    found: Detections,
    image_id: int,
    scales: np.ndarray,
    size: tuple[int, int],
    ids: Mapping[int, int],
) -> list[Json]:
    """The detections of one image as entries of COCO's results format, in their order.

    An entry has `image_id`, `category_id`, `score`, `bbox` as x, y, width and height, and `segmentation` as a
    compressed run-length code.

    Args:
        found: detections of the image, arrays without the axis of the batch. Boxes without an area are left
            out.
        image_id: id of the image.
        scales: pixels of the canvas for an original pixel along y and x, `[2]`.
        size: H and W.
        ids: category id by class.
    """
    limits = np.tile(np.array(size, np.float64), 2)
    boxes = np.clip(found.boxes.astype(np.float64) / np.tile(scales.astype(np.float64), 2), 0, limits)
    entries = []
    for place in np.flatnonzero(found.valid & np.all(boxes[:, 2:] > boxes[:, :2], axis=1)):
        y0, x0, y1, x1 = boxes[place]
        entries.append(
            {
                "image_id": int(image_id),
                "category_id": int(ids[int(found.classes[place])]),
                "score": float(found.scores[place]),
                "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
                "segmentation": _code(*paste(found.masks[place], boxes[place], size), size),
            }
        )
    return entries


def paste(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, int, int]:
    """The pixels of a mask, as a region of the image, and the row and the column where it begins.

    At the centre p + 0.5 of a pixel, the probability is interpolated bilinearly at
    u = (p + 0.5 - x0) / (x1 - x0) * m - 0.5, with zeros beyond the frame. Outside the box it is below 0.5.

    Args:
        mask: float `[m, m]`, probabilities.
        box: float `[4]`, (y0, x0, y1, x1) in original pixels, within the image.
        size: H and W.

    Returns:
        bool `[h, w]`, and two numbers.
    """
    # Indices instead of matrix products, for which a library would start threads of its own.
    framed, starts = np.pad(mask, 1), []
    for axis in (0, 1):
        low, high = box[axis], box[axis + 2]
        start, end = int(low), min(int(np.ceil(high)), size[axis])
        places = (np.arange(start, end) + 0.5 - low) / (high - low) * len(mask) + 0.5  # in the framed mask
        # The clipping gives centres far beyond the box a probability of 0.
        before = np.clip(places.astype(int), 0, len(mask))
        after = np.clip(places - before, 0, 1)
        framed = framed[before].T * (1 - after) + framed[before + 1].T * after
        starts.append(start)
    return framed >= THRESHOLD, *starts


def _code(region: np.ndarray, top: int, left: int, size: tuple[int, int]) -> Json:
    code = coco_mask.frPyObjects(encode_region(region, top, left, *size), *size)
    return {"size": list(size), "counts": code["counts"].decode()}  # bytes are no JSON


def ordered(results: Sequence[Json]) -> list[Json]:
    """Results by image and score, so that equal scores rank alike on any number of hosts."""
    return sorted(results, key=lambda each: (each["image_id"], -each["score"]))  # stable: then by the index
