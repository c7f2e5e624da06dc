"""The task of a detector in the training loop: it trains, is evaluated, and resumes bit for bit."""

import json

import jax
import numpy as np
import pytest
from support.small_detection import small
from support.train_runs import SharedTasks

from evonorms_jax.detection.task import build_task
from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.training import loop
from experiments.configs import coco_r50_fpn, coco_spinenet96


@pytest.fixture(scope="module")
def build():
    shared = SharedTasks(build_task)
    shared.devices = 1
    return shared


def newest(workdir):
    with Checkpoints(workdir / loop.CHECKPOINTS, write=False) as checkpoints:
        return checkpoints.restore().arrays


def test_a_training_that_stops_resumes_bit_for_bit(digits, tmp_path, build):
    config = small(digits)
    whole = loop.train(config, tmp_path / "whole", build)
    assert whole.steps == 4 and set(whole.validation) >= {"box_AP", "mask_AP"}
    build.last = 3
    with pytest.raises(OSError, match="power cut"):
        loop.train(config, tmp_path / "cut", build)
    build.last = None
    assert loop.train(config, tmp_path / "cut", build) == whole
    arrays = [jax.tree.leaves(newest(tmp_path / name)) for name in ("whole", "cut")]
    for one, other in zip(*arrays, strict=True):
        np.testing.assert_array_equal(one, other)
    rows = map(json.loads, (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines())
    logged = set().union(*rows)
    for name in ("proposal_score", "proposal_box", "class", "box", "mask"):
        assert f"train/{name}_loss" in logged


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.canvas": 72}, "data.canvas must be a multiple of 16, the stride of level 4, got 72"),
        ({"batch_size": 3, "statistics_batch": 2}, "batch_size must be a multiple of statistics_batch"),
        ({"detections.least_score": 1.0}, "detections.least_score must be at least 0 and below 1, got 1.0"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"roi_align.method": "pool"}, "unknown RoIAlign method 'pool'"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused(digits, overrides, message):
    with pytest.raises(ValueError, match=message):
        build_task(small(digits, **overrides), jax.devices()[:1])


@pytest.mark.parametrize("recipe", [coco_r50_fpn, coco_spinenet96])
def test_the_recipes_of_coco_keep_the_published_settings(recipe):
    """They are made from the recipe of the digits, whose own choices must not reach them."""
    config = recipe.get_config()
    assert config.sampling.to_dict() == {
        "anchors": 256,
        "positive_anchors": 128,
        "regions": 512,
        "positive_regions": 128,
    }
    assert config.roi_align.canonical_side == 224 and config.roi_align.aligned
    assert (config.optimizer.name, config.optimizer.momentum, config.optimizer.decayed) == (
        "momentum",
        0.9,
        "kernels",
    )
    assert config.model.box_dense == 1 and config.detections.threshold == 0.5
