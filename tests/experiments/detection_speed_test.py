"""The benchmark beside torchvision: both sides take steps on the same objects. Times are never asserted."""

import importlib.util
import json
import math
import sys

import numpy as np
import pytest

from evonorms_jax.detection.types import MASK_SIDE
from experiments import process
from experiments.benchmarks import detection_speed, results
from experiments.configs import detect_digits

PACKAGES = ("torch", "torchvision")
needs_torchvision = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, PACKAGES)),
    reason="PyTorch or torchvision is not installed: pip install torch torchvision",
)
SETTINGS = {"batches": 1, "steps": 1, "rounds": 1, "warmup": 1}


def tiny():
    """The recipe on a small canvas, with narrow heads that have every kind of layer."""
    config = detect_digits.get_config()
    config.batch_size, config.data.canvas = 2, 64
    config.model.update({"features": 8, "box_convs": 1, "box_dense_features": 8, "mask_features": 8})
    config.proposals.update({"train_candidates": 16, "count": 12})
    config.sampling.update({"anchors": 16, "positive_anchors": 8, "regions": 8, "positive_regions": 2})
    config.roi_align.canonical_side = 56.0
    return config


@pytest.mark.parametrize("missing", PACKAGES)
def test_without_a_package_one_line_names_the_command_that_installs_it(monkeypatch, capsys, missing):
    if missing == "torchvision":
        pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "experiments.benchmarks.torch_mask_rcnn", raising=False)
    with pytest.raises(SystemExit) as ended, process.errors_in_a_line():
        detection_speed.measure(tiny(), SETTINGS)
    assert ended.value.code == process.FAILED
    message = f"error: the baseline needs {missing}: pip install torch torchvision\n"
    assert capsys.readouterr().err == message


def test_a_mask_on_the_canvas_lies_in_its_box():
    mask = np.zeros((MASK_SIDE, MASK_SIDE), np.uint8)
    mask[: MASK_SIDE // 2] = 1
    expected = np.zeros((32, 32), bool)
    expected[4:12, 10:26] = True  # the upper half of the box
    box = np.array([4, 10, 20, 26], np.float32)
    np.testing.assert_array_equal(detection_speed.canvas_mask(mask, box, 32), expected)


@needs_torchvision
def test_both_sides_take_steps_and_have_as_many_parameters_in_every_part(tmp_path):
    config = tiny()
    measured = detection_speed.measure(config, SETTINGS)
    assert config.to_dict() == tiny().to_dict()
    results.publish(str(tmp_path), "speed.json", measured, detection_speed.table(measured))
    written = json.loads((tmp_path / "speed.json").read_text())
    assert written == json.loads(json.dumps(measured))
    assert written["machine"].keys() >= {"device", "cores", "jax", "torch", "torchvision"}
    assert written["settings"] == {"batch_size": 2, "canvas": 64, **SETTINGS}
    ours, theirs = (written["parameters"][name] for name in (detection_speed.OURS, detection_speed.THEIRS))
    assert ours == theirs
    assert ours.keys() == {"backbone", "pyramid", "proposal_head", "box_head", "mask_head"}
    times = {"milliseconds", "least", "largest", "images_per_second", "ratio"}
    for row in written["rows"]:
        assert row.keys() == {"side"} | times | set(detection_speed.LOSSES.values())
        assert all(row[key] > 0 for key in times)
        assert all(math.isfinite(row[key]) for key in detection_speed.LOSSES.values())
    assert [row["side"] for row in written["rows"]] == [detection_speed.OURS, detection_speed.THEIRS]
    assert written["rows"][0]["ratio"] == 1


@needs_torchvision
def test_the_baseline_has_the_anchors_of_the_recipe():
    import torch
    from torchvision.models.detection.image_list import ImageList

    from evonorms_jax.detection.anchors import level_anchors

    config = detect_digits.get_config()
    module, canvas = detection_speed.import_baseline(), config.data.canvas
    architecture = module.Architecture(**detection_speed.architecture_of(config, 11))
    detector = module.make_mask_rcnn(architecture, canvas, detection_speed.selection_of(config))
    images = torch.zeros(1, 3, canvas, canvas)
    with torch.no_grad():
        maps = list(detector.backbone(images).values())
    (found,) = detector.rpn.anchor_generator(ImageList(images, [(canvas, canvas)]), maps)
    expected = np.concatenate(level_anchors(canvas, range(2, 5), config.model.anchor_size))
    assert found.shape == expected.shape

    def sides(boxes):
        return boxes[:, 2:] - boxes[:, :2]

    # torchvision rounds the corners of an anchor around its centre.
    np.testing.assert_allclose(sides(found.numpy())[:, ::-1], sides(expected), atol=1)
