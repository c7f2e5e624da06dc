"""Batches from a folder in COCO's layout: order, shares, replacement of damaged pictures, errors."""

import itertools

import numpy as np
import pytest
from support.coco_sets import IDS, annotation, levels, settings, write_split
from support.data_sets import encode

from evonorms_jax.data import DataNotFoundError, Share
from evonorms_jax.detection import coco
from evonorms_jax.detection.types import TrainingBatch

KINDS = {4: "grey", 5: "cmyk", 6: "surplus"}
NUMBERS = range(1, 11)
EMPTY = 7  # has no object, and 8 has a crowd alone


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Ten pictures of 40 x 60 pixels that show their ids, of which eight can be trained on."""
    root = tmp_path_factory.mktemp("coco")
    code = {"size": [40, 60], "counts": [1200, 1200]}
    objects = [
        annotation(
            number, number, (10, 4, 30, 20), IDS[number % 3], code if number == 8 else None, number == 8
        )
        for number in NUMBERS
        if number != EMPTY
    ]
    for split in ("train2017", "val2017"):
        pictures = [levels(number, kind=KINDS.get(number, "colour")) for number in reversed(NUMBERS)]
        write_split(root, split, pictures, objects)
    return root


def open_set(root, share=Share(), order_seed=0, **fields):
    return coco.open_coco(settings(root, **fields), share=share, order_seed=order_seed)


def seen(batch):
    """The numbers of the pictures of a batch, by their grey levels."""
    return [round((float(image[:8, :8].mean()) - 4) / 8) for image in batch.images]


def all_seen(batches):
    return [number for batch in batches for number in seen(batch)]


def take(stream, count, batch_size=4, start=0):
    return list(itertools.islice(stream.train_batches(batch_size, start), count))


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        for values, others in zip(one, other, strict=True):
            np.testing.assert_array_equal(values, others)


def test_an_epoch_has_every_picture_with_an_object_once(root):
    stream = open_set(root, flip=True, scale=(0.8, 1.25))
    assert stream.sizes == {"train": 8, "validation": 0, "test": 0}
    batches = take(stream, 4)
    first, second = (all_seen(batches[start : start + 2]) for start in (0, 2))
    trained = [number for number in NUMBERS if number not in (EMPTY, 8)]
    assert sorted(first) == sorted(second) == trained and first != second
    batch = batches[0]
    assert isinstance(batch, TrainingBatch) and batch.images.shape == (4, 32, 32, 3)
    assert batch.classes[:, 0].tolist() == [1 + number % 3 for number in seen(batch)]
    assert batch.valid.tolist() == [[True, False, False, False]] * 4


def test_pictures_without_objects_are_kept_if_asked_for(root):
    stream = open_set(root, keep_empty=True)
    batches = take(stream, 2, batch_size=5)
    valid = {
        number: row.any() for each in batches for number, row in zip(seen(each), each.valid, strict=True)
    }
    assert valid == {number: number not in (EMPTY, 8) for number in NUMBERS}


def test_a_batch_depends_on_its_number_alone(root):
    """Not on threads, hosts or a restart, and the shares of the hosts in order are the batch."""
    fields = {"flip": True, "scale": (0.5, 2.0)}
    expected = take(open_set(root, threads=1, **fields), 5)
    assert_equal(take(open_set(root, threads=3, **fields), 2, start=3), expected[3:])
    shares = [take(open_set(root, Share(host, 2), **fields), 5) for host in (0, 1)]
    both = [
        TrainingBatch(*map(np.concatenate, zip(*each, strict=True))) for each in zip(*shares, strict=True)
    ]
    assert_equal(both, expected)
    other = take(open_set(root, order_seed=1, **fields), 5)
    assert not all(np.array_equal(one.images, two.images) for one, two in zip(other, expected, strict=True))


@pytest.mark.exhaustive
def test_processes_change_no_batch(root):
    fields = {"flip": True, "scale": (0.5, 2.0)}
    expected = take(open_set(root, **fields), 5)
    assert_equal(take(open_set(root, workers=2, **fields), 5), expected)


def test_evaluation_sees_every_picture_once_and_fills_the_last_batch(root):
    fields = {"validation_split": "val2017", "validation_size": 9}
    batches = list(open_set(root, **fields).eval_batches("validation", 4))
    counted = [(seen(each), each.image_ids.tolist(), each.weights.tolist()) for each in batches]
    assert counted == [
        ([1, 2, 3, 4], [1, 2, 3, 4], [1, 1, 1, 1]),
        ([5, 6, 7, 8], [5, 6, 7, 8], [1, 1, 1, 1]),
        ([9, 1, 2, 3], [9, 1, 2, 3], [1, 0, 0, 0]),
    ]
    first = batches[0]
    assert first.original_sizes.tolist() == [[40, 60]] * 4 and first.sizes.tolist() == [[21, 32]] * 4
    np.testing.assert_allclose(first.scales, [[21 / 40, 32 / 60]] * 4, rtol=1e-6)
    shares = [list(open_set(root, Share(host, 2), **fields).eval_batches("validation", 4)) for host in (0, 1)]
    assert [each.image_ids.tolist() for each in shares[1]] == [[3, 4], [7, 8], [2, 3]]
    truth = open_set(root, **fields).truth("validation")
    assert len(truth.content["images"]) == 9 and {
        each["image_id"] for each in truth.content["annotations"]
    } == {*range(1, 10)} - {EMPTY}


def test_the_first_images_make_a_smaller_set(root):
    stream = open_set(root, train_size=3)
    assert stream.sizes["train"] == 3 and set(all_seen(take(stream, 3))) == {1, 2, 3}


def test_classes_are_raw_ids_if_asked_for(root):
    batch = take(open_set(root, raw_ids=True), 1)[0]
    assert batch.classes[:, 0].tolist() == [IDS[number % 3] for number in seen(batch)]
    assert open_set(root, raw_ids=True).categories.num_classes == 12


# -- Damage and errors


def damaged_set(root, encoded=b"no picture", size=(40, 60)):
    pictures = [levels(1), (2, encoded, *size), levels(3)]
    for split in ("train2017", "val2017"):
        write_split(root, split, pictures, [annotation(number, number, (1, 1, 9, 9)) for number in (1, 2, 3)])
    return root


def test_a_damaged_picture_is_passed_over_and_reported(tmp_path, caplog):
    stream = open_set(damaged_set(tmp_path), validation_split="val2017")
    assert set(all_seen(take(stream, 3))) == {1, 3}
    (batch,) = stream.eval_batches("validation", 3)
    assert batch.weights.tolist() == [1, 0, 1]
    warnings = sorted(record.getMessage() for record in caplog.records)
    assert len(warnings) == 2  # once for each use
    assert "train2017, record 1 is damaged, the next one takes its place: " in warnings[0]
    assert "train2017/2.jpg: no picture format is known for it" in warnings[0]
    assert "val2017, record 1 is damaged, its objects count as missed: " in warnings[1]


def test_a_damaged_picture_is_refused_if_asked_for(tmp_path):
    stream = open_set(damaged_set(tmp_path, levels(2, kind="truncated")[1]), damaged="refuse")
    with pytest.raises(ValueError, match=r"train2017/2\.jpg: "):
        take(stream, 1, batch_size=3)


def test_a_picture_of_another_size_than_annotated_is_refused(tmp_path):
    stream = open_set(damaged_set(tmp_path, encode(np.zeros((40, 61, 3), np.uint8))))
    with pytest.raises(ValueError, match=r"2\.jpg has 40 x 61 pixels, and its annotation says 40 x 60"):
        take(stream, 1, batch_size=3)


def test_missing_files_are_named_with_their_path(root, tmp_path):
    with pytest.raises(
        DataNotFoundError, match=r"elsewhere/annotations/instances_train2017\.json is missing"
    ):
        open_set(tmp_path / "elsewhere")
    with pytest.raises(DataNotFoundError, match=r"annotations/instances_minival\.json is missing"):
        open_set(root, validation_split="minival")
    damaged_set(tmp_path)
    (tmp_path / "train2017" / "2.jpg").unlink()
    with pytest.raises(DataNotFoundError, match=r"train2017/2\.jpg is missing"):
        take(open_set(tmp_path), 1, batch_size=3)
    (tmp_path / "train2017" / "1.jpg").unlink()
    with pytest.raises(DataNotFoundError, match=r"train2017/1\.jpg is missing"):
        open_set(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "voc"}, "data.source must be digits or coco, got 'voc'"),
        ({"damaged": "ignore"}, "data.damaged must be skip or refuse, got 'ignore'"),
        ({"canvas": 0}, "data.canvas must be at least 1, got 0"),
        ({"train_size": 0}, "data.train_size must be at least 1, got 0"),
        ({"scale": (2.0, 1.0)}, "data.scale must be two numbers above 0 in ascending order"),
        ({"train_split": ""}, "data.train_split must name a split"),
    ],
)
def test_wrong_settings_are_one_line(root, fields, message):
    with pytest.raises(ValueError, match=message):
        coco.open_coco(settings(root)._replace(**fields))


def test_a_set_that_cannot_be_trained_on_is_refused(tmp_path, root):
    write_split(tmp_path, "train2017", [levels(1)], [])
    with pytest.raises(ValueError, match="no image of train2017 has an object to train on"):
        open_set(tmp_path)
    write_split(tmp_path, "train2017", [levels(1)], [annotation(1, 1, (1, 1, 9, 9))])
    write_split(tmp_path, "val2017", [levels(1)], [], names=("cat", "dog", "cow"))
    with pytest.raises(ValueError, match="the categories of val2017 are not those of train2017"):
        open_set(tmp_path, validation_split="val2017")
    with pytest.raises(ValueError, match=r"the validation part of .* is empty"):
        open_set(root).eval_batches("validation", 2)
    with pytest.raises(ValueError, match="batch_size must be a multiple of the number of hosts, 2, got 3"):
        open_set(root, Share(0, 2)).train_batches(3)
