"""Steps of a tiny detector: independent of devices and parts, with the origin of a lost training first."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.tiny_detector import random_batch, tiny_choices, tiny_detector

from evonorms_jax.detection.train_step import make_init, make_train_step
from evonorms_jax.training.mesh import data_mesh, put_batch
from evonorms_jax.training.steps import StepSettings

COUNTS = (0, 1, 2, 3, 4, 5, 6, 6)
METRICS = ["proposal_score_loss", "proposal_box_loss", "class_loss", "box_loss", "mask_loss", "loss"]


def step_on(devices, settings, detector=None):
    """State and metrics after one step."""
    mesh = data_mesh(jax.devices()[:devices], groups=settings.groups(8))
    detector, optimizer = detector or tiny_detector(), optax.sgd(0.1)
    state = make_init(detector, optimizer, mesh)(jax.random.key(0))
    step = make_train_step(detector, optimizer, mesh, settings, tiny_choices())
    return step(state, put_batch(mesh, random_batch(0, COUNTS)), jax.random.key(1))


def close(first, second):
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-5)


@pytest.mark.exhaustive
def test_one_device_two_parts_and_eight_devices_agree():
    settings = StepSettings(statistics_batch=4)
    one = step_on(1, settings)
    close(one, step_on(8, settings))
    close(one, step_on(2, settings._replace(accumulate=2)))


def test_a_loss_that_is_not_finite_precedes_the_values_that_it_spoils():
    mesh, detector, optimizer = data_mesh(jax.devices()[:4]), tiny_detector(), optax.sgd(0.1)
    state = jax.eval_shape(make_init(detector, optimizer, mesh), jax.random.key(0))
    step = make_train_step(detector, optimizer, mesh, StepSettings(), tiny_choices())
    after, metrics = jax.eval_shape(step, state, random_batch(0, COUNTS), jax.random.key(1))
    assert list(metrics) == [*METRICS, "gradient_norm"]
    assert after == state


@pytest.mark.exhaustive
def test_bfloat16_and_recomputed_stages_keep_the_losses():
    exact = step_on(1, StepSettings())[1]
    again = step_on(1, StepSettings(), detector=tiny_detector(remat=True))[1]
    low = step_on(1, StepSettings(), detector=tiny_detector(dtype=jnp.bfloat16))
    close(exact, again)
    assert {leaf.dtype for leaf in jax.tree.leaves(low[0].params)} == {jnp.dtype("float32")}
    for name in METRICS[:3]:  # samples of regions may differ
        np.testing.assert_allclose(low[1][name], exact[name], rtol=0.2)
