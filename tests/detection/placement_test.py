"""Places of images on the canvas: pixels, boxes and masks move together."""

import numpy as np
import pytest

from evonorms_jax.detection import placement
from evonorms_jax.detection.annotations import CocoObject
from evonorms_jax.detection.objects import fill_slots

SIDE = 64


def rectangle(box, label=1, crowd=False):
    """An object that fills its box (y0, x0, y1, x1)."""
    y0, x0, y1, x1 = box
    polygon = np.array([x0, y0, x1, y0, x1, y1, x0, y1], np.float32)
    return CocoObject(tuple(map(float, box)), label, crowd, [polygon])


def drawn(box, height, width):
    """A black image with a white rectangle."""
    image = np.zeros((height, width, 3), np.uint8)
    image[box[0] : box[2], box[1] : box[3]] = 255
    return image


def overlap(one, other):
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    areas = [np.prod(box[2:] - box[:2]) for box in (one, other)]
    return np.prod(sides) / (sum(areas) - np.prod(sides))


def shown(canvas):
    """The box of the white pixels, to a fraction of a pixel."""
    sides = []
    for axis in (0, 1):
        # Bilinear edges are symmetric, so the sum of a line is its length and its centroid the centre.
        line = canvas[..., 0].max(1 - axis) / 255.0
        length, centre = line.sum(), line @ (np.arange(len(line)) + 0.5) / line.sum()
        sides.append((centre - length / 2, centre + length / 2))
    (y0, y1), (x0, x1) = sides
    return np.array([y0, x0, y1, x1])


@pytest.mark.parametrize("flip", [False, True])
def test_a_rectangle_stays_with_its_picture(flip):
    """Resized, mirrored, cut and padded, a drawn rectangle is still the one in the slots."""
    checked = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        height, width = (int(side) for side in rng.integers(60, 200, 2))
        corner = rng.integers(0, (height // 2, width // 2))
        box = np.concatenate([corner, corner + rng.integers(20, 26, 2)])
        placed = placement.jittered(rng, height, width, 256, scale=(0.8, 2.0), flip=flip)
        boxes, classes, masks, valid = fill_slots([rectangle(box)], placed, 2)
        canvas = placed.image(drawn(box, height, width))
        assert canvas.shape == (256, 256, 3)
        if not valid[0] or min(boxes[0, 2:] - boxes[0, :2]) < 20:
            continue
        checked += 1
        assert overlap(shown(canvas), boxes[0]) > 0.95
        assert classes.tolist() == [1, 0] and masks[0].mean() > 0.97 and not masks[1].any()
        size = placed.size.astype(int)
        assert not canvas[size[0] :].any() and not canvas[:, size[1] :].any()
    assert checked > 35


def test_mirroring_twice_is_the_identity(rng):
    image = rng.integers(0, 255, (SIDE, 40, 3)).astype(np.uint8)
    boxes = rng.uniform(0, 20, (5, 4)) + np.array([0, 0, 20, 20])
    placed = placement.whole(SIDE, 40, SIDE)
    mirrored = placed._replace(flip=True)
    np.testing.assert_allclose(mirrored.to_canvas(mirrored.to_canvas(boxes)), boxes)
    canvas = mirrored.image(image)
    np.testing.assert_array_equal(canvas[:, :40], image[:, ::-1])
    np.testing.assert_array_equal(mirrored.image(canvas[:, :40]), placed.image(image))


def test_masks_are_mirrored_with_their_boxes():
    triangle = CocoObject((10.0, 10, 30, 30), 1, False, [np.array([10, 10, 30, 10, 10, 30], np.float32)])
    placed = placement.whole(SIDE, 40, SIDE)
    (plain,), _, (mask,), _ = fill_slots([triangle], placed, 1)
    (mirrored,), _, (other,), _ = fill_slots([triangle], placed._replace(flip=True), 1)
    np.testing.assert_allclose(plain, [10, 10, 30, 30])
    np.testing.assert_allclose(mirrored, [10, 10, 30, 30])  # 40 - 30 and 40 - 10
    np.testing.assert_array_equal(other, mask[:, ::-1])
    assert 0.45 < mask.mean() < 0.55 and mask[5, 5] and not mask[-5, -5]


def test_boxes_return_to_the_original(rng):
    boxes = rng.uniform(0, 30, (7, 4))
    for seed in range(10):
        placed = placement.jittered(np.random.default_rng(seed), 37, 90, SIDE, scale=(0.5, 2.0), flip=True)
        np.testing.assert_allclose(placed.to_original(placed.to_canvas(boxes)), boxes, atol=1e-6)


def test_evaluation_sees_the_whole_image():
    placed = placement.whole(30, 90, SIDE)
    assert placed.resized == (21, 64) and placed.offset == (0, 0) and not placed.flip
    np.testing.assert_allclose(placed.scales, [21 / 30, 64 / 90], rtol=1e-6)
    assert placed.size.tolist() == [21, 64]


def test_scales_and_places_cover_their_ranges():
    found = [
        placement.jittered(np.random.default_rng(seed), 40, 80, SIDE, scale=(0.5, 2.0), flip=True)
        for seed in range(300)
    ]
    longer = np.array([placed.resized[1] / SIDE for placed in found])
    assert 0.5 <= longer.min() < 0.52 and 1.98 < longer.max() <= 2.0 and abs(longer.mean() - 1.25) < 0.1
    room = np.array([placed.resized[1] - SIDE for placed in found])
    offsets = np.array([placed.offset[1] for placed in found])
    assert np.all((offsets >= 0) & (offsets <= np.maximum(room, 0)))
    assert abs(np.mean((offsets / np.maximum(room, 1))[room > 20]) - 0.5) < 0.1
    assert abs(np.mean([placed.flip for placed in found]) - 0.5) < 0.1
    unflipped = placement.jittered(np.random.default_rng(3), 40, 80, SIDE, scale=(0.5, 2.0), flip=False)
    assert unflipped == found[3]._replace(flip=False)


# -- Slots


CUT = placement.Placement((SIDE, SIDE), (2 * SIDE, 2 * SIDE), (40, 0), False, SIDE)


def test_a_cut_object_gets_the_box_of_its_visible_mask():
    """Of an L only the lower bar is seen, so the box loses the part above which there is no pixel."""
    corner = np.array([30, 5, 34, 5, 34, 21, 50, 21, 50, 25, 30, 25], np.float32)
    placed = CUT._replace(offset=(40, 64))  # x from 32 on and y from 20 on
    (box,), _, (mask,), (valid,) = fill_slots([CocoObject((5.0, 30, 25, 50), 1, False, [corner])], placed, 1)
    assert valid
    np.testing.assert_allclose(box, [0, 0, 10, 36], atol=0.4)
    bar = np.array([30, 5, 34, 5, 34, 21, 50, 21, 50, 25, 30, 25], np.float32)
    upper = CUT._replace(offset=(0, 72))  # x from 36 on: the post is cut away
    (box,), _, (mask,), _ = fill_slots([CocoObject((5.0, 30, 25, 50), 1, False, [bar])], upper, 1)
    np.testing.assert_allclose(box, [42, 0, 50, 28], atol=0.4)
    assert mask.mean() > 0.98


def test_objects_that_are_not_seen_leave_no_gap():
    seen = rectangle((30, 10, 50, 30), label=2)
    unseen = [
        rectangle((0, 0, 15, 15)),  # above the canvas
        rectangle((0, 0, 20.2, 15)),  # 0.4 pixels of it are left
        rectangle((30, 10, 50, 30), crowd=True),
        CocoObject((30.0, 10, 50, 30), 1, False, [np.array([10, 0, 30, 0, 30, 10], np.float32)]),
    ]
    boxes, classes, masks, valid = fill_slots([*unseen, seen, seen, seen], CUT, 2)
    assert classes.tolist() == [2, 2] and valid.all() and masks.all()
    np.testing.assert_allclose(boxes, [[20, 20, 60, 60]] * 2)
    assert boxes.dtype == np.float32 and classes.dtype == np.int32 and masks.dtype == np.uint8


def test_without_objects_all_slots_are_empty():
    boxes, classes, masks, valid = fill_slots([], CUT, 3)
    assert not boxes.any() and not classes.any() and not masks.any() and not valid.any()
