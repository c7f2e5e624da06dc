"""The arrays that pass between the data, the detector and the evaluation.

Shapes: B images, canvas side P, M object slots, D detections. Boxes are (y0, x0, y1, x1) in pixels of the
canvas, float32, without the "+1" of older code: the height of a box is y1 - y0. Images lie at the upper left
of the canvas, the rest is filling.
"""

from typing import NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray

MASK_SIDE = 112  # of the stored mask of an object, cropped to its box
DETECTED_MASK_SIDE = 28  # of the mask of a detection


class TrainingBatch(NamedTuple):
    """The images of a step and their objects. Crowds are left out."""

    images: Array  # float32, or uint8 that is normalised on the device, [B, P, P, 3]
    sizes: Array  # float32 [B, 2], height and width of the image on the canvas
    boxes: Array  # float32 [B, M, 4]
    classes: Array  # int32 [B, M], 1 to K, 0 in an empty slot
    masks: Array  # uint8 or float32 [B, M, 112, 112], each cropped to its box
    valid: Array  # bool [B, M], False in an empty slot


class EvaluationBatch(NamedTuple):
    """Images to detect objects in, and the way back to their original pixels."""

    images: Array  # float32 or uint8 [B, P, P, 3]
    sizes: Array  # float32 [B, 2], height and width of the image on the canvas
    image_ids: Array  # int64 or int32 [B]
    scales: Array  # float32 [B, 2], pixels of the canvas for one original pixel along y and x
    original_sizes: Array  # int32 [B, 2], height and width of the original image
    weights: Array  # float32 [B], 0 for filling


class Detections(NamedTuple):
    """A fixed number of detections for every image, the best first."""

    boxes: Array  # float32 [B, D, 4], canvas pixels
    scores: Array  # float32 [B, D]
    classes: Array  # int32 [B, D], 1 to K, 0 in an empty slot
    masks: Array  # float32 [B, D, 28, 28], probabilities on the grid of the box
    valid: Array  # bool [B, D]
