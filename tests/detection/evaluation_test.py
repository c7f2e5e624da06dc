"""Evaluation from detections on the canvas to files, with detectors that know the truth."""

import json
import socket

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from PIL import Image
from support import mains
from support.coco_sets import annotation, levels, settings, write_split
from support.detection_truth import evaluated, never

from evonorms_jax.detection import coco, evaluation
from evonorms_jax.detection.annotations import CocoObject
from evonorms_jax.detection.evaluation import Evaluator
from evonorms_jax.detection.mask_targets import crop_masks
from evonorms_jax.detection.objects import fill_slots
from evonorms_jax.detection.paste import results_of
from evonorms_jax.detection.placement import whole
from evonorms_jax.detection.segmentation import decode
from evonorms_jax.detection.types import DETECTED_MASK_SIDE, Detections
from evonorms_jax.training.mesh import data_mesh, local_rows, split


def rectangle(box):
    y0, x0, y1, x1 = box
    polygon = np.array([x0, y0, x1, y0, x1, y1, x0, y1], np.float32)
    return CocoObject((y0, x0, y1, x1), 1, False, [polygon])


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """A set of pictures with squares of 30 pixels or more at all fractions of a pixel."""
    root, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    pictures, objects = [], []
    for number in range(1, 7):
        height, width = (int(side) for side in rng.integers(90, 140, 2))
        pictures.append(levels(number, height, width))
        for _ in range(2):
            side = rng.uniform(30, 44)
            x, y = rng.uniform(0, (width - side, height - side))
            objects.append(annotation(len(objects) + 1, number, (x, y, side, side)))
    for split_name in ("train2017", "val2017"):
        write_split(root, split_name, pictures, objects)
    return settings(root, canvas=256, slots=12, validation_split="val2017")


def test_the_truth_is_found_and_pasted_back(squares):
    _, found = evaluated(squares)
    assert found["box_AP"] == pytest.approx(1.0, abs=1e-6)
    assert found["mask_AP"] >= 0.95
    assert "mask_APl" not in found  # no object is large


def test_masks_are_pasted_back_without_a_shift(rng):
    """The centroids of 300 squares of 30 pixels or more, whose corners lie at any fraction of a pixel."""
    size, count = (480, 640), 300
    corners, sides = rng.uniform(0, 400, (count, 2)), rng.uniform(30, 60, (count, 1))
    boxes = np.concatenate([corners, corners + sides], axis=1)
    objects = [rectangle(box) for box in boxes]
    placed = whole(*size, 256)
    on_canvas, classes, masks, valid = fill_slots(objects, placed, count)
    cropped = np.asarray(crop_masks(masks, on_canvas, on_canvas, DETECTED_MASK_SIDE))
    found = Detections(on_canvas, np.ones(count, np.float32), classes, cropped, valid)
    offsets = []
    for entry, box in zip(results_of(found, 1, placed.scales, size, {1: 1}), boxes, strict=True):
        rows, columns = np.nonzero(decode(entry["segmentation"], *size))
        offsets.append((rows.mean() + 0.5, columns.mean() + 0.5) - (box[:2] + box[2:]) / 2)
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.05 and np.abs(offsets).max() < 0.6


def test_digit_scenes_are_found_with_crowds_and_filling(digits, tmp_path):
    """All forms of masks occur. The files hold the numbers that are returned."""
    evaluator, found = evaluated(digits, batch_size=6)  # the last batch has four images of filling
    assert found["box_AP"] == pytest.approx(1.0, abs=1e-6) and found["mask_AP50"] > 0.95
    evaluator.illustrate(type("State", (), {"step": np.int32(7)}), epath.Path(tmp_path))
    written = json.loads((tmp_path / evaluation.SCORES).read_text())
    assert written["step"] == 7 and written["part"] == "validation"
    assert written["box"]["AP"] == found["box_AP"] and written["mask"]["AP75"] == found["mask_AP75"]
    assert written["box"]["APl"] is None and set(written["mask"]["classes"]) >= {"zero", "nine"}
    results = json.loads((tmp_path / evaluation.DETECTIONS).read_text())
    assert results == evaluator._last.results
    plain = [
        each for each in evaluator._stream.truth("validation").content["annotations"] if not each["iscrowd"]
    ]
    assert len(results) == len(plain)
    assert {each["category_id"] for each in results} == {each["category_id"] for each in plain}
    with Image.open(tmp_path / evaluation.PICTURES) as picture:
        assert picture.width > 2000 and picture.height > 900
    assert (tmp_path / f"{evaluation.CURVES}.png").read_bytes().startswith(b"\x89PNG")
    assert b"AP50 100.0" in (tmp_path / f"{evaluation.CURVES}.svg").read_bytes()


def test_a_part_without_images_or_a_request_to_stop_gives_no_score(digits, tmp_path):
    stream = coco.open_coco(digits._replace(test_split=""))
    evaluator = Evaluator(None, stream, data_mesh(jax.devices()[:2]), 2, threads=1)
    assert evaluator.evaluate(None, "test", never) == {}
    assert evaluator.evaluate(None, "validation", lambda: True) == {}
    evaluator.illustrate(None, epath.Path(tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_rows_of_this_host_return_in_order():
    mesh = data_mesh(jax.devices()[:4])
    values = np.arange(24).reshape(8, 3)
    found = local_rows({"a": jax.device_put(values, split(mesh))})
    np.testing.assert_array_equal(found["a"], values)
    jitted = jax.jit(lambda x: x + 1, out_shardings=split(mesh))
    np.testing.assert_array_equal(local_rows(jitted(jnp.asarray(values))), values + 1)


def test_the_results_of_all_hosts_are_collected(monkeypatch):
    """The hosts hold different numbers of results and exchange arrays of one size."""
    shares = [[{"score": 0.5}], [], [{"score": 0.25, "name": "Ä"}, {"score": 0.125}]]
    sent = []

    def allgather(value):
        sent.append(value)
        texts = [json.dumps(share).encode() for share in shares]
        if value.ndim == 0:
            return np.array([len(text) for text in texts])
        return np.stack([np.frombuffer(text.ljust(len(value), b"\0"), np.uint8) for text in texts])

    monkeypatch.setattr(evaluation.multihost_utils, "process_allgather", allgather)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    assert evaluation._gather(shares[2]) == shares[0] + shares[2]
    assert sent[1].dtype == np.uint8 and len(sent[1]) == int(sent[0])  # its own is the longest


@pytest.mark.exhaustive
def test_two_hosts_score_as_one(digits):
    """Each host pastes the masks of its own images, and both have all results."""
    evaluator, expected = evaluated(digits, batch_size=6)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program, fields = ("-m", "support.detection_truth"), json.dumps(digits._asdict())
    hosts = [mains.launch(*program, fields, address, str(number)) for number in (0, 1)]
    for host in hosts:
        done = mains.finish(host)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found == [expected["box_AP"], expected["mask_AP"], len(evaluator._last.results)]
