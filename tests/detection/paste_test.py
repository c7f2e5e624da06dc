"""Masks of detections pasted into original pixels, against the formula written out."""

import numpy as np
import pytest

from evonorms_jax.detection.paste import ordered, paste, results_of
from evonorms_jax.detection.segmentation import decode
from evonorms_jax.detection.types import Detections


def reference(mask, box, size):
    """Every pixel of the image, one after the other."""
    found = np.zeros(size, bool)
    m = len(mask)
    framed = np.pad(mask, 1)  # zeros beyond the frame
    for row, column in np.ndindex(size):
        places = []
        for axis, pixel in enumerate((row, column)):
            low, high = box[axis], box[axis + 2]
            places.append((pixel + 0.5 - low) / (high - low) * m - 0.5)
        if min(places) <= -1 or max(places) >= m:
            continue
        (y, x), (fy, fx) = np.floor(places).astype(int), np.mod(places, 1)
        corners = framed[y + 1 : y + 3, x + 1 : x + 3]
        found[row, column] = [1 - fy, fy] @ corners @ [1 - fx, fx] >= 0.5
    return found


def placed(region, top, left, size):
    whole = np.zeros(size, bool)
    whole[top : top + region.shape[0], left : left + region.shape[1]] = region
    return whole


@pytest.mark.parametrize("seed", range(4))
def test_a_pasted_mask_is_that_of_the_formula(seed):
    rng = np.random.default_rng(seed)
    size = (23, 31)
    for _ in range(5):
        start, sides = rng.uniform(-2, 18, 2), rng.uniform(0.4, 14, 2)
        box = np.clip(np.concatenate([start, start + sides]), 0, np.tile(size, 2))
        if min(box[2:] - box[:2]) < 0.1:
            continue
        mask = rng.uniform(0, 1.3, (28, 28)).clip(0, 1)
        np.testing.assert_array_equal(placed(*paste(mask, box, size), size), reference(mask, box, size))


def detections(**fields):
    values = {
        "boxes": np.zeros((3, 4), np.float32),
        "scores": np.array([0.9, 0.8, 0.7], np.float32),
        "classes": np.array([1, 2, 1], np.int32),
        "masks": np.ones((3, 28, 28), np.float32),
        "valid": np.ones(3, bool),
    }
    return Detections(**(values | fields))


def test_results_are_in_original_pixels_with_category_ids():
    boxes = np.array([[4, 8, 20, 40], [0, 0, 8, 8], [30, 60, 50, 90]], np.float32)
    found = detections(boxes=boxes, valid=np.array([True, False, True]))
    first, second = results_of(found, np.int64(17), np.array([2.0, 4.0], np.float32), (20, 20), {1: 5, 2: 9})
    assert first["image_id"] == 17 and first["category_id"] == 5 and first["score"] == np.float32(0.9)
    assert first["bbox"] == [2, 2, 8, 8] and second["bbox"] == [15, 15, 5, 5]  # clipped to the image
    whole = np.zeros((20, 20), bool)
    whole[2:10, 2:10] = True
    np.testing.assert_array_equal(decode(first["segmentation"], 20, 20), whole)
    assert all(type(value) in (int, float) for each in (first, second) for value in each["bbox"])
    assert type(first["image_id"]) is int and type(first["segmentation"]["counts"]) is str


def test_a_box_without_an_area_is_left_out():
    boxes = np.array([[4, 8, 4, 40], [0, 25, 8, 30], [1, 1, 2, 2]], np.float32)
    found = results_of(detections(boxes=boxes), 1, np.ones(2, np.float32), (20, 20), {1: 1, 2: 2})
    assert [entry["bbox"] for entry in found] == [[1, 1, 1, 1]]


def test_results_are_ordered_by_image_score_and_index():
    entries = [
        {"image_id": image, "score": score, "index": index}
        for index, (image, score) in enumerate([(2, 0.5), (1, 0.4), (2, 0.9), (1, 0.4), (2, 0.5)])
    ]
    assert [each["index"] for each in ordered(entries)] == [1, 3, 2, 0, 4]
