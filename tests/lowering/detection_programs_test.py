"""The programs of a detector for a TPU: those of a tiny one are compiled, those of the recipes are traced."""

import pytest

from evonorms_jax.lowering import check
from evonorms_jax.lowering.programs import measure
from evonorms_jax.lowering.topology import get_topology
from experiments.configs import coco_r50_fpn, coco_spinenet96, detect_digits

NAMES = ["initialization", "training step", "evaluation"]


@pytest.fixture(scope="module")
def topology():
    return get_topology("v5litepod-4")


def tiny():
    config = detect_digits.get_config("quick")
    config.batch_size = config.eval_batch_size = 4
    config.data.update({"canvas": 32, "slots": 2})
    config.model.update({"features": 8, "box_dense_features": 8, "mask_convs": 0, "mask_features": 8})
    config.proposals.update({"train_candidates": 16, "test_candidates": 16, "count": 8})
    config.sampling.update({"anchors": 16, "positive_anchors": 8, "regions": 8, "positive_regions": 2})
    config.detections.update({"candidates": 8, "count": 4})
    return config


@pytest.mark.exhaustive
def test_a_tiny_detector_compiles_and_every_loop_is_counted(topology):
    programs = {one.name: one for one in check.programs_of(tiny(), topology)}
    assert list(programs) == NAMES
    for name in NAMES[1:]:
        found = measure(programs[name], topology.chip)
        assert found.excess == 0 and found.step.flops > 0
        assert not found.once_only
        assert found.program.images == 4


def test_a_tiny_training_step_is_lowered_with_the_convolutions_of_a_tpu(topology):
    step = check.programs_of(tiny(), topology)[1]
    assert "stablehlo.convolution" in step.lower().as_text()


@pytest.mark.exhaustive
@pytest.mark.parametrize("recipe", [coco_r50_fpn, coco_spinenet96])
def test_the_recipes_are_traced_without_coco(topology, recipe):
    assert [one.name for one in check.programs_of(recipe.get_config(), topology)] == NAMES
