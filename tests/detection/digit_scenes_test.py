"""Digit scenes: their layout, their annotations, and that they are made once."""

import json

import numpy as np
import pytest
from support.detection import DIGITS

from evonorms_jax.detection import coco, digit_scenes
from evonorms_jax.detection.digit_scenes import CATEGORY_IDS, objects_of
from evonorms_jax.detection.scene_painting import Layer
from evonorms_jax.detection.segmentation import decode
from evonorms_jax.detection.settings import CocoSettings


@pytest.fixture(scope="module")
def contents(scenes):
    return {
        split: json.loads((scenes / "annotations" / f"instances_{split}.json").read_text())
        for split in digit_scenes.SPLITS
    }


def test_the_files_are_those_of_coco(scenes, contents):
    for (split, content), size in zip(contents.items(), DIGITS, strict=True):
        names = [image["file_name"] for image in content["images"]]
        assert len(names) == size and sorted(names) == sorted(p.name for p in (scenes / split).iterdir())
        ids = [image["id"] for image in content["images"]]
        assert len(set(ids)) == size and np.all(np.diff(ids) > 1)
        assert [each["id"] for each in content["categories"]] == list(CATEGORY_IDS)
        sides = {image[side] for image in content["images"] for side in ("height", "width")}
        assert sides <= {96, 112, 128, 144, 160}


def test_annotations_are_tight_boxes_and_areas_of_visible_masks(contents):
    content, kinds = contents["train2017"], []
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for each in content["annotations"]:
        mask = decode(each["segmentation"], *sizes[each["image_id"]])
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y, width, height = each["bbox"]
        assert (y, x) == (rows[0], columns[0])
        assert (y + height, x + width) == (rows[-1] + 1, columns[-1] + 1)
        assert each["area"] == mask.sum() >= 16
        kinds.append((type(each["segmentation"]), each["iscrowd"]))
    assert {(list, 0), (dict, 0)} <= set(kinds)  # both readers are needed


def test_no_two_objects_share_a_pixel(contents):
    content = contents["train2017"]
    for image in content["images"]:
        masks = [
            decode(each["segmentation"], image["height"], image["width"])
            for each in content["annotations"]
            if each["image_id"] == image["id"]
        ]
        assert not masks or np.sum(masks, axis=0).max() == 1


def test_the_reader_of_coco_reads_them_in_all_modes(digits):
    stream = coco.open_coco(digits)
    assert stream.sizes["validation"] == DIGITS[1] and stream.sizes["test"] == DIGITS[2]
    assert stream.categories.num_classes == 10
    (batch,) = stream.eval_batches("validation", DIGITS[1])  # the second is grey, the third is CMYK
    channels = batch.images.astype(int)
    spread = [np.ptp(image[:90, :90], axis=-1).max() for image in channels]
    assert spread[1] == 0 and min(spread[0], spread[2]) > 20


def test_a_scene_depends_on_the_seed_and_its_number_alone(digits, scenes, tmp_path):
    fewer = digit_scenes.find_scenes(
        digits._replace(data_dir=str(tmp_path), train_size=3, validation_size=1, test_size=1)
    )
    for picture in (fewer / "train2017").iterdir():
        assert picture.read_bytes() == (scenes / "train2017" / picture.name).read_bytes()
    other = digit_scenes.find_scenes(
        digits._replace(data_dir=str(tmp_path), train_size=3, validation_size=1, test_size=1, seed=1)
    )
    assert other != fewer
    for picture in (other / "train2017").iterdir():
        assert picture.read_bytes() != (fewer / "train2017" / picture.name).read_bytes()


def test_scenes_are_made_once_and_whole(digits, tmp_path, monkeypatch):
    settings = digits._replace(data_dir=str(tmp_path), train_size=1, validation_size=1, test_size=1)

    def fails(root, seed, sizes):
        root.mkdir(parents=True)
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(digit_scenes, "write_scenes", fails)
        with pytest.raises(OSError, match="no space"):
            digit_scenes.find_scenes(settings)
    assert not list(tmp_path.iterdir())
    folder = digit_scenes.find_scenes(settings)
    monkeypatch.setattr(digit_scenes, "write_scenes", fails)
    assert digit_scenes.find_scenes(settings) == folder


def test_the_default_has_the_published_sizes(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(
        digit_scenes, "write_scenes", lambda root, seed, sizes: made.append(sizes) or root.mkdir()
    )
    digit_scenes.find_scenes(CocoSettings("digits", data_dir=str(tmp_path)))
    assert made == [[2000, 250, 250]]


# -- Annotations of layers


def layer(rows, columns, label=1, crowd=False):
    mask = np.zeros((60, 80), bool)
    mask[slice(*rows), slice(*columns)] = True
    return Layer(mask, label, crowd)


def test_upper_layers_hide_lower_ones():
    """Less than 40 % of the second and 15 pixels of the third stay visible."""
    layers = [
        layer((0, 10), (0, 10)),
        layer((0, 10), (20, 30), label=2),
        layer((30, 34), (0, 5), label=3),
        layer((0, 10), (5, 10), label=None),
        layer((0, 10), (23, 40), label=4),
        layer((33, 34), (0, 5), label=5),
    ]
    found = objects_of(layers)
    assert [each["category_id"] for each in found] == [CATEGORY_IDS[1], CATEGORY_IDS[4]]
    first, last = found
    assert first["bbox"] == [0, 0, 5, 10] and first["area"] == 50
    assert isinstance(first["segmentation"], dict)
    (corners,) = last["segmentation"]  # it has no hole, and no layer hides a part of it
    assert set(zip(corners[::2], corners[1::2], strict=True)) == {(23, 0), (40, 0), (40, 10), (23, 10)}


def test_a_crowd_is_one_code():
    (found,) = objects_of([layer((0, 20), (0, 20), crowd=True)])
    assert found["iscrowd"] == 1 and isinstance(found["segmentation"], dict)
