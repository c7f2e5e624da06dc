"""Masks on the host: run-length codes, polygons, frames and outlines, against pycocotools."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from evonorms_jax.detection.outlines import outline
from evonorms_jax.detection.segmentation import decode, encode, encode_region, in_frame


def blob(rng, height, width):
    """A smooth random mask, bool `[height, width]`."""
    noise = rng.normal(size=(height, width))
    for _ in range(2):
        noise = sum(np.roll(noise, shift, axis) for axis in (0, 1) for shift in (-1, 0, 1))
    return noise > 0.3


def compressed(mask):
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def test_the_code_of_a_region_is_that_of_the_whole_mask(rng):
    for case in range(200):
        height, width = rng.integers(1, 12, 2)
        rows, columns = rng.integers(0, height + 1, 2), rng.integers(0, width + 1, 2)
        (top, bottom), (left, right) = np.sort(rows), np.sort(columns)
        whole = np.zeros((height, width), bool)
        whole[top:bottom, left:right] = rng.random((bottom - top, right - left)) < (case % 5) / 4
        code = encode_region(whole[top:bottom, left:right], top, left, height, width)
        assert encode(json.loads(json.dumps(code)), height, width) == compressed(whole)
        np.testing.assert_array_equal(decode(code, height, width), whole)


def test_the_three_forms_of_a_rectangle_are_one_mask():
    whole = np.zeros((9, 14), bool)
    whole[2:6, 3:10] = True
    polygons = [[3, 2, 10, 2, 10, 6, 3, 6]]
    code = encode_region(whole, 0, 0, 9, 14)
    text = {"size": [9, 14], "counts": compressed(whole)["counts"].decode()}
    for segmentation in (polygons, code, text, compressed(whole)):
        np.testing.assert_array_equal(decode(segmentation, 9, 14), whole)


def test_a_frame_shows_the_part_of_a_mask_in_its_box(rng):
    """Polygons and codes agree, at any box, up to pixels through which an edge runs."""
    whole = np.zeros((40, 50), bool)
    whole[10:30, 5:45] = True
    polygons = [np.array([5, 10, 45, 10, 45, 30, 5, 30], np.float32)]
    code = encode_region(whole, 0, 0, 40, 50)
    for _ in range(20):
        start, sides = rng.uniform(0, 20, 2), rng.uniform(3, 20, 2)
        box = np.concatenate([start, start + sides])
        centres = [box[axis] + (np.arange(28) + 0.5) * sides[axis] / 28 for axis in (0, 1)]
        inside = np.outer((centres[0] > 10) & (centres[0] < 30), (centres[1] > 5) & (centres[1] < 45))
        for segmentation, most in ((polygons, 0.06), (code, 0.0)):
            found = in_frame(segmentation, (40, 50), box, 28)
            assert np.mean(found != inside) <= most


def test_a_frame_is_finer_than_the_image():
    """A triangle of four pixels keeps its form at 112, since it is drawn there."""
    triangle = [np.array([10, 10, 14, 10, 10, 14], np.float32)]
    found = in_frame(triangle, (40, 50), np.array([10.0, 10, 14, 14]), 112)
    rows, columns = np.mgrid[:112, :112]
    assert np.mean(found != (rows + columns < 111)) < 0.02


@pytest.mark.parametrize("seed", range(5))
def test_an_outline_is_drawn_back_to_its_pixels(seed):
    rng = np.random.default_rng(seed)
    drawn = 0
    for _ in range(40):
        mask = blob(rng, *rng.integers(3, 14, 2))
        polygons = outline(mask)
        if polygons:
            np.testing.assert_array_equal(decode(polygons, *mask.shape), mask)
            drawn += 1
    assert drawn > 10


def test_an_outline_has_no_hole():
    mask = np.ones((5, 5), bool)
    (corners,) = outline(mask)
    assert sorted(zip(corners[::2], corners[1::2], strict=True)) == [(0, 0), (0, 5), (5, 0), (5, 5)]
    mask[2, 2] = False
    assert outline(mask) is None
    mask[2, 3] = mask[2, 4] = False  # a bay is no hole
    assert len(outline(mask)) == 1
    assert len(outline(np.eye(2, dtype=bool))) == 2  # pixels that touch at a corner
