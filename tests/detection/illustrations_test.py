"""Pictures of detections."""

import numpy as np
from support.coco_sets import IDS, NAMES, rectangle

from evonorms_jax.detection.annotations import Categories
from evonorms_jax.detection.illustrations import below, beside, draw

CATEGORIES = Categories(IDS, NAMES)


def entry(box, category=IDS[0], **fields):
    return {"category_id": category, "bbox": list(box), "segmentation": rectangle(*box), **fields}


def test_masks_are_tinted_where_they_are():
    image = np.full((240, 480, 3), 100, np.uint8)
    boxes = (40, 60, 100, 120), (300, 60, 100, 120)
    drawn = np.asarray(draw(image, [entry(boxes[0]), entry(boxes[1], IDS[1], score=0.87)], CATEGORIES))
    assert drawn.shape == (240, 480, 3)
    inside = [drawn[80:160, x + 10 : x + 80].reshape(-1, 3) for x in (40, 300)]
    colours = [part.mean(0) for part in inside]
    assert max(part.std(0).max() for part in inside) < 1e-6  # one colour each
    assert np.abs(colours[0] - colours[1]).max() > 30 and np.abs(colours[0] - 100).max() > 20
    assert np.all(drawn[:30] == 100) and np.all(drawn[200:] == 100)
    assert np.all(image == 100)


def test_the_first_entry_is_on_top():
    image = np.zeros((240, 480, 3), np.uint8)
    low, high = entry((40, 60, 100, 120)), entry((40, 60, 100, 120), IDS[2])
    place = (150, 100)
    first = np.asarray(draw(image, [high, low], CATEGORIES))[place].astype(int)
    second = np.asarray(draw(image, [low, high], CATEGORIES))[place].astype(int)
    assert np.abs(first - second).max() > 10


def test_a_small_image_is_enlarged_and_pictures_are_joined():
    image = np.zeros((40, 60, 3), np.uint8)
    one = draw(image, [entry((0, 0, 60, 40), iscrowd=1)], CATEGORIES, "title")
    assert one.size == (480, 320 + 24)
    assert beside([one, one]).size == (968, 344) and below([one, one]).size == (480, 696)
