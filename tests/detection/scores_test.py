"""Average precision: the cases in which pycocotools, or a use of it, is known to go wrong."""

import json

import numpy as np
import pytest
from support.coco_sets import IDS, annotation, content, rectangle

from evonorms_jax.detection import scores
from evonorms_jax.detection.annotations import categories_of
from evonorms_jax.detection.paste import ordered
from evonorms_jax.detection.segmentation import encode

SIZE = (60, 80)
BOXES = ((4, 5, 20, 30), (40, 10, 30, 20), (10, 42, 24, 12))


def truth_of(annotations, images=(1, 2)):
    return content([(number, f"{number}.jpg", *SIZE) for number in images], annotations)


def result(image_id, box, score=0.9, category=IDS[0], shape=None):
    code = encode(shape or rectangle(*box), *SIZE)
    code["counts"] = code["counts"].decode()
    return {
        "image_id": image_id,
        "category_id": category,
        "score": score,
        "bbox": list(box),
        "segmentation": code,
    }


def scored(truth, results):
    truth = json.loads(json.dumps(truth))  # as a file gives it
    return scores.score(scores.open_truth(truth), ordered(results), categories_of(truth))


def summary(truth, results, kind="box"):
    return scored(truth, results)[kind].summary


def test_the_truth_itself_is_perfect():
    annotations = [annotation(number, 1, box) for number, box in enumerate(BOXES, 1)]
    found = scored(truth_of(annotations), [result(1, box) for box in BOXES])
    for kind in ("box", "mask"):
        assert found[kind].summary["AP"] == pytest.approx(1.0)
        assert found[kind].precision.precisions.shape == (10, 101, 3)
        assert np.nanmean(found[kind].precision.precisions) == pytest.approx(1.0)


def test_no_result_is_no_error_and_scores_nothing():
    found = scored(truth_of([annotation(1, 1, BOXES[0])]), [])
    assert found["box"].summary["AP"] == found["mask"].summary["AP50"] == 0.0


def test_an_image_without_results_counts():
    """The objects of all annotated images are to be found, not of those with results alone."""
    annotations = [annotation(1, 1, BOXES[0]), annotation(2, 2, BOXES[0])]
    found = summary(truth_of(annotations), [result(1, BOXES[0])])
    assert found["AP"] == pytest.approx(51 / 101)  # recalls 0.00 to 0.50


def test_a_false_result_on_an_image_without_objects_counts():
    results = [result(1, BOXES[0], 0.5), result(2, BOXES[0], 0.9)]
    assert summary(truth_of([annotation(1, 1, BOXES[0])]), results)["AP"] == pytest.approx(0.5)


def test_the_size_of_a_mask_is_its_area():
    """A thin diagonal in a box of 1,600 pixels has a small mask, and its box is of medium size."""
    box, diagonal = (2, 2, 40, 40), [[2, 2, 6, 2, 42, 42, 38, 42]]
    each = annotation(1, 1, box, segmentation=diagonal) | {"area": 160.0}
    # A false result of the same kind, which counts in the class of its size.
    results = [result(1, box, 0.5, shape=diagonal), result(2, box, 0.9, shape=diagonal)]
    found = scored(truth_of([each]), results)
    assert found["mask"].summary["APs"] == pytest.approx(0.5)
    assert found["mask"].summary["APm"] is None and found["mask"].summary["APl"] is None
    assert found["box"].summary["APs"] == pytest.approx(1.0)  # the false box is not small


def test_a_category_without_an_object_is_absent_and_left_out_of_the_mean():
    annotations = [annotation(1, 1, BOXES[0], IDS[0]), annotation(2, 1, BOXES[1], IDS[2])]
    results = [result(1, BOXES[0], category=IDS[0]), result(1, BOXES[2], category=IDS[1])]
    found = summary(truth_of(annotations), results)
    assert found["classes"] == {"cat": pytest.approx(1.0), "dog": None, "kite": 0.0}
    assert found["AP"] == pytest.approx(0.5)
    json.dumps(found, allow_nan=False)


def test_a_result_on_a_crowd_is_not_false():
    crowd = {"size": list(SIZE), "counts": [20 * 60, 40 * 60, 20 * 60]}
    each = annotation(2, 1, (20, 0, 40, 60), segmentation=crowd, crowd=1)
    box = (2, 2, 16, 30)
    results = [result(1, box, 0.5), result(1, (25, 5, 10, 10), 0.9), result(1, (40, 20, 10, 10), 0.8)]
    truth = [annotation(1, 1, box), each]
    for kind in ("box", "mask"):
        assert summary(truth_of(truth), results, kind)["AP"] == pytest.approx(1.0)
        assert summary(truth_of(truth[:1]), results, kind)["AP"] == pytest.approx(1 / 3)


def test_equal_scores_give_one_number_in_any_order(rng):
    annotations = [annotation(number, 1 + number % 2, box) for number, box in enumerate(BOXES, 1)]
    results = [result(1 + number % 2, box, 0.5) for number, box in enumerate(BOXES, 1)]
    results += [result(image, (1, 1, 9, 9), 0.5) for image in (1, 2)]
    # The order within an image is that of its detector. The shares of the hosts may come in any order.
    shares = [[each for each in results if each["image_id"] == image] for image in (1, 2)]
    numbers = {
        summary(truth_of(annotations), [*first, *second])["AP"] for first, second in (shares, shares[::-1])
    }
    assert len(numbers) == 1 and 0 < numbers.pop() < 1


def test_the_library_prints_nothing_and_the_truth_is_left_as_it_is(capfd):
    truth = truth_of([annotation(1, 1, BOXES[0])])
    before = json.dumps(truth)
    opened = scores.open_truth(truth)
    for results in ([], [result(1, BOXES[0])]):
        scores.score(opened, results, categories_of(truth))
    assert json.dumps(truth) == before
    assert capfd.readouterr() == ("", "")
