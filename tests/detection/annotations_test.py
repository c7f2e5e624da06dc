"""Annotation files of COCO's format: the map of categories, the records, and the errors."""

import json

import numpy as np
import pytest
from etils import epath
from support.coco_sets import IDS, NAMES, annotation, content

from evonorms_jax.data import DataNotFoundError
from evonorms_jax.detection.annotations import categories_from, categories_of, images_of, read_annotations


def written(tmp_path, value):
    path = epath.Path(tmp_path) / "instances_train2017.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def one_image(*annotations):
    return content([(5, "5.jpg", 40, 60)], annotations)


def test_category_ids_with_gaps_become_classes_and_back():
    found = categories_of(content([], [], ids=IDS[::-1], names=NAMES[::-1]))
    assert found.ids == IDS and found.names == NAMES and found.num_classes == 3
    assert found.class_of() == {3: 1, 7: 2, 12: 3} and found.id_of() == {1: 3, 2: 7, 3: 12}
    raw = categories_of(content([], []), raw=True)
    assert raw.class_of() == {3: 3, 7: 7, 12: 12} and raw.num_classes == 12
    assert (
        found.to_json() == {"3": "1 cat", "7": "2 dog", "12": "3 kite"} and raw.to_json()["12"] == "12 kite"
    )
    for each in (found, raw, found._replace(names=("traffic light", "a", "b"))):
        assert categories_from(json.loads(json.dumps(each.to_json()))) == each
    with pytest.raises(ValueError, match="at least 1, got 0"):
        categories_of(content([], [], ids=(0, 1, 2)), raw=True)


def test_images_come_in_the_order_of_their_ids_with_their_objects():
    code = {"size": [40, 60], "counts": [100, 50, 2250]}
    annotations = [
        annotation(1, 9, (10, 5, 20, 10.5), category=12),
        annotation(2, 9, (0, 0, 60, 40), segmentation=code, crowd=1),
        annotation(3, 9, (1, 1, 0, 4)),
        annotation(4, 9, (1, 1, 4, 4), segmentation=[[1, 1, 5, 5], [1, 1, 5, 1, 5, 5]]),
        annotation(5, 9, (1, 1, 4, 4), segmentation=[[1, 1, 5, 5]]),
    ]
    found = content([(9, "b.jpg", 40, 60), (2, "a.jpg", 30, 20)], annotations)
    first, second = images_of(found, categories_of(found))
    assert first[:4] == (2, "a.jpg", 30, 20) and first.objects == ()
    polygon, crowd, triangle = second.objects  # an empty box and a line are no objects
    assert polygon.box == (5, 10, 15.5, 30) and polygon.label == 3 and not polygon.crowd
    np.testing.assert_array_equal(polygon.segmentation[0], [10, 5, 30, 5, 30, 15.5, 10, 15.5])
    assert crowd.crowd and crowd.segmentation == code
    assert len(triangle.segmentation) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "instances_train2017.json is no JSON file"),
        ([], "has no list 'images'"),
        ({"images": []}, "has no list 'annotations'"),
        (content([], []), "has no images or no categories"),
        ({**one_image(), "images": [{"id": 5}]}, "images have no 'file_name', as in {'id': 5}"),
        (content([(5, "a.jpg", 4, 4)] * 2, []), "two image entries have the same id"),
        (one_image(annotation(8, 6, (0, 0, 4, 4))), "annotation 8: there is no image with the id 6"),
        (one_image(annotation(8, 5, (0, 0, 4, 4), category=4)), "annotation 8: category_id 4 is not among"),
        (one_image(annotation(8, 5, (0, 0, 4, 4), segmentation=[])), "annotation 8 has no segmentation"),
        (
            one_image(annotation(8, 5, (60, 0, 4, 4))),
            r"annotation 8: bbox \[60, 0, 4, 4\] lies outside its image of 40 x 60 pixels",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, value, message):
    with pytest.raises(ValueError, match=message) as error:
        read_annotations(written(tmp_path, value))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_missing_file_is_named_with_its_path(tmp_path):
    path = epath.Path(tmp_path) / "annotations" / "instances_val2017.json"
    with pytest.raises(DataNotFoundError, match=r"annotations/instances_val2017\.json is missing"):
        read_annotations(path)
