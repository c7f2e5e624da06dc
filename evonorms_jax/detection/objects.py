"""The objects of an image in the slots of a training batch: clipped boxes, classes, masks in their boxes.

M object slots.
"""

from collections.abc import Sequence

import numpy as np

from evonorms_jax.detection.annotations import CocoObject
from evonorms_jax.detection.placement import Placement
from evonorms_jax.detection.segmentation import in_frame
from evonorms_jax.detection.types import MASK_SIDE

_LEAST_SIDE = 1.0  # of a box on the canvas, in pixels
Slots = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def fill_slots(objects: Sequence[CocoObject], placement: Placement, slots: int) -> Slots:
    """The visible objects on the canvas, in their order, up to the number of slots.

    Crowds are left out, and so are objects whose clipped box has a side below one pixel or a mask without a
    pixel. The box of an object that the canvas cuts is tightened around its visible mask, to within a pixel
    of the mask's frame.

    Returns:
        float32 `[M, 4]` boxes in pixels of the canvas, int32 `[M]` classes, uint8 `[M, 112, 112]` masks in
        the frame of their boxes, and bool `[M]`, False in an empty slot.
    """
    boxes, classes = np.zeros((slots, 4), np.float32), np.zeros(slots, np.int32)
    masks = np.zeros((slots, MASK_SIDE, MASK_SIDE), np.uint8)
    used = 0
    for each in objects:
        found = None if each.crowd or used == slots else _visible(each, placement)
        if found is not None:
            boxes[used], masks[used], classes[used] = *found, each.label
            used += 1
    return boxes, classes, masks, np.arange(slots) < used


def _visible(each: CocoObject, placement: Placement) -> tuple[np.ndarray, np.ndarray] | None:
    """The box on the canvas and the mask of an object, or None if it is not seen."""
    whole = placement.to_canvas(np.array([each.box], np.float64))[0]
    box = np.clip(whole, 0, np.tile(placement.size, 2))
    mask = _mask(each, placement, box)
    if mask is not None and not np.allclose(box, whole, atol=_LEAST_SIDE):
        box = _tight(box, mask)
        mask = _mask(each, placement, box)
    return None if mask is None else (box, mask)


def _mask(each: CocoObject, placement: Placement, box: np.ndarray) -> np.ndarray | None:
    """The mask in the frame of a box on the canvas, or None if the box or the mask is empty."""
    if min(box[2:] - box[:2]) < _LEAST_SIDE:
        return None
    original = placement.to_original(box[None])[0]
    mask = in_frame(each.segmentation, placement.original, original, MASK_SIDE)
    mask = mask[:, ::-1] if placement.flip else mask
    return mask if mask.any() else None


def _tight(box: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The part of a box that holds all pixels of the mask in its frame."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    least, most = np.array([rows[0], columns[0]]), np.array([rows[-1], columns[-1]]) + 1
    side = (box[2:] - box[:2]) / MASK_SIDE
    return np.concatenate([box[:2] + least * side, box[:2] + most * side])
