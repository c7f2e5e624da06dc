"""Schedules and optimizers against their formulas."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evonorms_jax.training.optimizer import (
    OptimizerSettings,
    adamw,
    make_optimizer,
    make_schedule,
    muon,
    rmsprop,
    sgd,
)


def rates(steps, **settings):
    schedule = make_schedule(learning_rate=0.8, steps=steps, **settings)
    return np.array([float(schedule(step)) for step in range(steps)])


def test_constant():
    np.testing.assert_allclose(rates(5), 0.8)


def test_cosine_goes_from_the_peak_to_zero():
    expected = 0.4 * (1 + np.cos(np.pi * np.arange(10) / 10))
    np.testing.assert_allclose(rates(10, schedule="cosine"), expected, rtol=1e-5)


def test_step_drops_where_the_published_recipe_does():
    expected = np.repeat([0.8, 0.08, 0.008, 0.0008], [30, 30, 20, 10])
    np.testing.assert_allclose(rates(90, schedule="step"), expected, rtol=1e-5)


def test_exponential_drops_every_2_4_epochs_of_350():
    expected = 0.8 * 0.97 ** np.floor(np.arange(3500) / 24)
    np.testing.assert_allclose(rates(3500, schedule="exponential"), expected, rtol=1e-5)
    with_warmup = rates(3500, schedule="exponential", warmup_steps=50)
    np.testing.assert_allclose(with_warmup[50:], expected[50:], rtol=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_warm_up_rises_linearly_and_ends_at_the_peak(schedule):
    found = rates(90, schedule=schedule, warmup_steps=5)
    np.testing.assert_allclose(found[:6], [0.16, 0.32, 0.48, 0.64, 0.8, 0.8], rtol=1e-5)


def test_warm_up_moves_no_drop_and_no_end():
    with_warmup = rates(90, schedule="step", warmup_steps=20)
    np.testing.assert_allclose(with_warmup[20:], rates(90, schedule="step")[20:], rtol=1e-5)
    schedule = make_schedule(learning_rate=0.8, steps=90, schedule="cosine", warmup_steps=20)
    assert schedule(89) > 0 and schedule(90) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"warmup_steps": 91}, "warmup_steps must be from 0 to steps, 90, got 91"),
        ({"warmup_steps": -1}, "warmup_steps must be from 0 to steps, 90, got -1"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(learning_rate=0.1, steps=90, **settings)


def test_sgd_is_nesterov_with_decay_off_the_norms():
    """m <- mu m + g + d w;  w <- w - rate (g + d w + mu m), with d = 0 for gamma, beta, v."""
    params = {
        "conv": {"kernel": jnp.array([1.0, -2.0])},
        "norm": {"scale": jnp.array([3.0]), "bias": jnp.array([4.0]), "v": jnp.array([5.0])},
    }
    decayed = {"conv": {"kernel": 0.5}, "norm": {"scale": 0.0, "bias": 0.0, "v": 0.0}}
    schedule = optax.constant_schedule(0.1)
    optimizer = sgd(schedule, momentum=0.9, weight_decay=0.5)
    state, expected = optimizer.init(params), jax.tree.map(np.asarray, params)
    trace = jax.tree.map(np.zeros_like, expected)
    for step in range(3):
        gradient = jax.tree.map(lambda leaf, step=step: np.full_like(leaf, 0.3 + step), params)
        change, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, change)
        force = jax.tree.map(lambda g, w, d: g + d * w, gradient, expected, decayed)
        trace = jax.tree.map(lambda m, f: 0.9 * m + f, trace, force)
        expected = jax.tree.map(lambda w, f, m: w - 0.1 * (f + 0.9 * m), expected, force, trace)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, expected)


def test_rmsprop_is_that_of_tensorflow_1():
    """m <- 0.9 m + 0.1 g^2 from 1 on;  t <- mu t + rate g / sqrt(m + 0.001);  w <- w - t."""
    params = {"conv": {"kernel": jnp.array([1.0, -2.0])}, "norm": {"scale": jnp.array([3.0])}}
    optimizer = rmsprop(optax.constant_schedule(0.1), momentum=0.8, weight_decay=0.5)
    state, expected = optimizer.init(params), jax.tree.map(np.asarray, params)
    square, trace = jax.tree.map(np.ones_like, expected), jax.tree.map(np.zeros_like, expected)
    for step in range(3):
        gradient = jax.tree.map(lambda leaf, step=step: np.full_like(leaf, 0.3 + step), params)
        change, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, change)
        gradient["conv"]["kernel"] = gradient["conv"]["kernel"] + 0.5 * expected["conv"]["kernel"]
        square = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g**2, square, gradient)
        trace = jax.tree.map(lambda t, g, m: 0.8 * t + 0.1 * g / np.sqrt(m + 1e-3), trace, gradient, square)
        expected = jax.tree.map(np.subtract, expected, trace)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, expected)


def test_adamw_decays_weights_beside_the_means_and_spares_the_norms():
    """m, s are means of g, g^2 without the bias of their start; w <- w - rate (m / (sqrt(s) + eps) + d w)."""
    params = {"conv": {"kernel": jnp.array([1.0, -2.0])}, "norm": {"scale": jnp.array([3.0])}}
    optimizer = adamw(optax.constant_schedule(0.1), momentum=0.8, weight_decay=0.5)
    state, expected = optimizer.init(params), np.array([1.0, -2.0, 3.0])
    mean, square = np.zeros(3), np.zeros(3)
    for step in range(1, 4):
        gradient = step * np.array([0.5, -0.1, 2.0]) - 1
        grouped = {"conv": {"kernel": jnp.array(gradient[:2])}, "norm": {"scale": jnp.array(gradient[2:])}}
        change, state = optimizer.update(grouped, state, params)
        params = optax.apply_updates(params, change)
        mean, square = 0.8 * mean + 0.2 * gradient, 0.999 * square + 0.001 * gradient**2
        move = mean / (1 - 0.8**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        expected = expected - 0.1 * (move + 0.5 * expected * [1, 1, 0])
    found = jnp.concatenate([params["conv"]["kernel"], params["norm"]["scale"]])
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_muon_makes_the_matrices_inside_a_network_orthogonal_and_leaves_the_rest_to_adam(rng):
    shapes = {
        "stem": {"kernel": (3, 3, 2, 4)},
        "dense": {"kernel": (6, 4), "bias": (4,)},
        "conv": {"kernel": (3, 3, 4, 5)},
        "depthwise": {"kernel": (3, 3, 1, 4)},
        "loop": {"kernel": (2, 6, 4)},
        "classifier": {"dense": {"kernel": (4, 3)}},
    }
    draw = functools.partial(jax.tree.map, lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32))
    params, gradient = (draw(shapes, is_leaf=lambda shape: isinstance(shape, tuple)) for _ in range(2))
    optimizer = muon(optax.constant_schedule(0.1), momentum=0.95, weight_decay=0.5)
    change, _ = optimizer.update(gradient, optimizer.init(params), params)
    moved = jax.tree.map(lambda step, w: np.asarray(-step / 0.1 - 0.5 * w), change, params)
    # Without the weight decay, the first step of Adam is the sign of the gradient. Nesterov's mean adds the
    # decayed mean, of which 1 - 0.9^2 corrects the bias.
    first = 1 + 0.9 * (1 - 0.9) / (1 - 0.9**2)
    for path in ("stem/kernel", "depthwise/kernel", "dense/bias", "classifier/dense/kernel"):
        found, given = (
            functools.reduce(operator.getitem, path.split("/"), tree) for tree in (moved, gradient)
        )
        np.testing.assert_allclose(found, first * np.sign(given), atol=1e-3, err_msg=path)
    steps = {"dense": moved["dense"]["kernel"], "conv": moved["conv"]["kernel"].reshape(36, 5)}
    steps |= {f"block {number}": moved["loop"]["kernel"][number] for number in range(2)}
    for name, step in steps.items():
        lengths = np.linalg.svd(step, compute_uv=False) / (0.2 * np.sqrt(max(step.shape)))
        assert np.all((lengths > 0.6) & (lengths < 1.3)), name


def settings(**changes):
    fields = {"name": "sgd", "momentum": 0.9, "weight_decay": 0.0, "learning_rate": 0.8}
    return OptimizerSettings(**fields | changes)


def test_the_rate_grows_with_the_batch_and_the_warm_up_is_counted_in_epochs():
    chosen = settings(reference_batch=256, warmup_epochs=2.0, warmup_steps=7)
    _, schedule = make_optimizer(chosen, steps=100, batch_size=64, images=640)
    found = [float(schedule(step)) for step in (0, 19, 50)]
    np.testing.assert_allclose(found, [0.2 / 20, 0.2, 0.2], rtol=1e-5)


def test_an_unknown_optimizer():
    with pytest.raises(ValueError, match=r"unknown optimizer 'adam'; there are .*, rmsprop, adamw, muon"):
        make_optimizer(settings(name="adam"), steps=1, batch_size=1, images=1)


def test_the_drops_of_the_step_schedule_can_be_placed():
    found = rates(100, schedule="step", drops=(0.5, 0.9), warmup_steps=10)
    np.testing.assert_allclose(found[10:], np.repeat([0.8, 0.08, 0.008], [40, 40, 10]), rtol=1e-5)


def test_plain_momentum_decays_kernels_alone_and_clips_the_gradient():
    """m <- mu m + c g + d w;  w <- w - rate m, with d = 0 for biases and c = 1 / |g| where |g| > 1."""
    params = {"conv": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}}
    chosen = settings(name="momentum", decayed="kernels", weight_decay=0.5, clip_norm=1.0)
    optimizer, _ = make_optimizer(chosen, steps=10, batch_size=1, images=1)
    state, expected, trace = optimizer.init(params), np.array([1.0, -2.0, 3.0]), np.zeros(3)
    for size in (0.1, 4.0):
        gradient = size * np.array([1.0, 2.0, 2.0])
        grouped = {"conv": {"kernel": jnp.array(gradient[:2]), "bias": jnp.array(gradient[2:])}}
        change, state = optimizer.update(grouped, state, params)
        params = optax.apply_updates(params, change)
        trace = 0.9 * trace + gradient / max(1, 3 * size) + 0.5 * expected * [1, 1, 0]
        expected = expected - 0.8 * trace
    found = jnp.concatenate([params["conv"]["kernel"], params["conv"]["bias"]])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_unknown_choice_of_decayed_parameters():
    with pytest.raises(ValueError, match="decayed must be all_but_norms or kernels, got 'all'"):
        make_optimizer(settings(decayed="all"), steps=1, batch_size=1, images=1)
