"""Trainings that stop and go on, compared with one that did not by all that they leave behind."""

import jax
import numpy as np
import pytest
from support.train_runs import SharedTasks

from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.training import loop
from experiments.configs.train import get_config

BUILD = loop.build_task


def small(**overrides):
    config = get_config("quick")
    settings = {
        "steps": 6,
        "batch_size": 8,
        "eval_batch_size": 8,
        "log_every": 2,
        "eval_every": 4,
        "checkpoint_every": 3,
        "data.source": "synthetic",
        "data.image_size": 8,
        "data.crop": 6,
        "data.train_size": 64,
        "data.validation_size": 16,
        "model.name": "resnet_tiny",
        "optimizer.warmup_steps": 2,
    }
    config.update_from_flattened_dict(settings | overrides)
    return config


@pytest.fixture
def train(monkeypatch):
    """`loop.train` on so many devices; the power goes off before a step, if one is given."""
    shared = SharedTasks(loop.build_task)
    monkeypatch.setattr(loop, "build_task", shared)

    def run(config, workdir, *, devices=1, last=None):
        shared.devices, shared.last = devices, last
        return loop.train(config, workdir)

    return run


def newest(workdir):
    """The arrays of the newest checkpoint."""
    with Checkpoints(workdir / loop.CHECKPOINTS, write=False) as checkpoints:
        return checkpoints.restore().arrays


def test_what_went_on_ends_bit_for_bit_as_what_did_not_stop(train, tmp_path):
    """With every random draw of a step and every variable beside the parameters."""
    config = small(
        dtype="bfloat16",
        mixup=0.4,
        average_decay=0.9,
        **{"model.name": "efficientnet_small", "model.dropout_rate": 0.3, "model.drop_connect_rate": 0.3},
    )
    whole = train(config, tmp_path / "whole")
    with pytest.raises(OSError, match="power cut"):
        train(config, tmp_path / "broken", last=5)
    assert int(newest(tmp_path / "broken")["step"]) == 4
    assert train(config, tmp_path / "broken") == whole
    expected = newest(tmp_path / "whole")
    assert int(expected["step"]) == 6 and expected["average"] and expected["opt_state"]
    jax.tree.map(np.testing.assert_array_equal, newest(tmp_path / "broken"), expected)


def test_another_number_of_devices_goes_on_with_it(train, tmp_path):
    """Statistics are those of the whole batch, so only the order of sums differs."""
    config = small(**{"layer.spec": "evonorm_b0"})
    whole = train(config, tmp_path / "whole")
    with pytest.raises(OSError, match="power cut"):
        train(config, tmp_path / "broken", devices=4, last=5)
    result = train(config, tmp_path / "broken")
    assert result.steps == 6
    assert result.test["loss"] == pytest.approx(whole.test["loss"], rel=1e-3)
    jax.tree.map(
        lambda found, expected: np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4),
        newest(tmp_path / "broken"),
        newest(tmp_path / "whole"),
    )
