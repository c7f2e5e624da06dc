"""A step of a training against its formula, and on any number of devices."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from evonorms_jax import data
from evonorms_jax.layers import norm_act
from evonorms_jax.training.feed import Batching, resident_feed
from evonorms_jax.training.mesh import check_divisible, data_mesh, replicated
from evonorms_jax.training.optimizer import sgd
from evonorms_jax.training.steps import (
    StepSettings,
    correct,
    cross_entropy,
    make_evaluate,
    make_init,
    make_train_step,
    one_hot,
)

KEY = jax.random.key(0)
RATE = 0.1


class Network(nn.Module):
    """A convolution, a layer, dropout, a linear classifier."""

    layer: str
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(8, (3, 3))(x)
        x = norm_act(self.layer, groups=2)(use_running_average=not train)(x)
        x = nn.Dropout(self.dropout)(jnp.mean(x, (1, 2)), deterministic=not train)
        return nn.Dense(4)(x)


@pytest.fixture(scope="module")
def images():
    return made_up()


@functools.cache
def made_up():
    return data.load("synthetic", train_size=64, validation_size=23, image_size=8)


def training(images, layer="bn_relu", *, devices=1, dropout=0.0, crop=6, rate=RATE, **settings):
    """The initial state, a function to the next one, and the jitted function in it with its batches."""
    settings = StepSettings(**settings)
    mesh = data_mesh(jax.devices()[:devices], groups=settings.groups(16))
    model, optimizer = Network(layer, dropout), sgd(lambda _: rate, momentum=0.0, weight_decay=0.0)
    feed = resident_feed(images, Batching(16, 16, crop=crop, flip=True), KEY, mesh)
    init = make_init(model, optimizer, feed.images, mesh, average=bool(settings.average_decay))
    step = make_train_step(model, optimizer, feed.images, mesh, settings)
    return init(KEY), lambda state: step(state, next(feed.batches(int(state.step))), KEY), step


@functools.cache
def history(layer="bn_relu", *, devices=8, **settings):
    """Losses of four steps and the state after them; tests share the programs."""
    state, train_step, step = training(made_up(), layer, devices=devices, **settings)
    losses = []
    for _ in range(4):
        state, metrics = train_step(state)
        losses.append(float(metrics["loss"]))
    assert step._cache_size() == 1
    return losses, jax.device_get(state)


def assert_same(found, expected):
    (losses, state), (expected_losses, expected_state) = found, expected
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state, expected_state)


def test_a_step_follows_the_gradient_of_its_batch(images):
    """Whole images that look the same in a mirror: nothing is random but the choice of the batch."""
    pixels = images.train.images
    images = images._replace(
        train=images.train._replace(images=np.maximum(pixels, pixels[:, :, ::-1])),
    )
    state, train_step, _ = training(images, crop=8)
    params, stats = jax.tree.map(np.asarray, (state.params, state.batch_stats))
    order_key, _ = jax.random.split(KEY)
    chosen = data.batch_indices(order_key, 0, 64, 16)
    x = data.normalize(images.train.images[chosen], images.mean, images.std)
    labels = images.train.labels[chosen]

    def loss_of(params):
        variables = {"params": params, "batch_stats": stats}
        logits, updated = Network("bn_relu").apply(variables, x, train=True, mutable=["batch_stats"])
        picked = jnp.take_along_axis(nn.log_softmax(logits), labels.reshape(-1, 1), axis=1)
        return -jnp.mean(picked), (logits, updated["batch_stats"])

    (loss, (logits, new_stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
    expected = jax.tree.map(lambda p, g: p - RATE * g, params, gradient)
    after, metrics = train_step(state)
    assert int(after.step) == 1
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, (after.params, after.batch_stats), (expected, new_stats))
    close(metrics["loss"], loss)
    close(metrics["accuracy"], np.mean(np.argmax(logits, -1) == labels))
    close(metrics["gradient_norm"], np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(gradient))))


def test_eight_devices_do_what_one_does():
    one, eight = (history("evonorm_b0", devices=devices, dropout=0.5) for devices in (1, 8))
    assert len(set(one[0])) == 4
    assert_same(eight, one)


@pytest.mark.parametrize("layer", ["evonorm_b0", pytest.param("bn_relu", marks=pytest.mark.exhaustive)])
def test_groups_have_statistics_of_their_own_on_any_number_of_devices(layer):
    """Groups of 4 images: two devices share one of 8, two groups share one of 2."""
    cut = {"statistics_batch": 4, "dropout": 0.5}
    one, two, eight = (history(layer, devices=devices, **cut) for devices in (1, 2, 8))
    assert_same(two, one)
    assert_same(eight, one)
    whole, _ = history(layer, dropout=0.5)
    assert abs(whole[0] - one[0][0]) > 1e-3


def test_a_group_is_a_batch_of_its_own(images):
    """The loss and the moving statistics are the means over the groups."""
    state, train_step, _ = training(images, crop=8, statistics_batch=4)
    variables = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
    feed = resident_feed(images, Batching(16, 16, crop=8, flip=True), KEY, data_mesh(jax.devices()[:1]))
    pixels, labels = next(feed.batches(0))
    x = data.normalize(pixels, images.mean, images.std)
    losses, means = [], []
    for group in range(0, 16, 4):
        part = slice(group, group + 4)
        logits, updated = Network("bn_relu").apply(variables, x[part], train=True, mutable=["batch_stats"])
        losses.append(np.mean(cross_entropy(logits, one_hot(labels[part], 4))))
        means.append(updated["batch_stats"])
    after, metrics = train_step(state)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)
    expected = jax.tree.map(lambda *each: np.mean(each, 0), *means)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after.batch_stats, expected
    )


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_a_batch_in_parts_gives_the_same(devices):
    settings = {"devices": devices, "statistics_batch": 4, "dropout": 0.5, "mixup": 0.4}
    whole, parts = (history(accumulate=accumulate, **settings) for accumulate in (1, 2))
    assert_same(parts, whole)


def test_mixed_images_and_labels_go_together(images):
    """Loss of share * x + (1 - share) * its neighbor's, with labels mixed likewise, and then smoothed."""
    settings = {"mixup": 0.4, "label_smoothing": 0.2}
    state, train_step, _ = training(images, crop=8, **settings)
    variables = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
    feed = resident_feed(images, Batching(16, 16, crop=8, flip=True), KEY, data_mesh(jax.devices()[:1]))
    pixels, labels = next(feed.batches(0))
    x, targets = np.asarray(data.normalize(pixels, images.mean, images.std)), np.eye(4)[labels]
    share = float(jax.random.beta(jax.random.split(jax.random.fold_in(KEY, 0))[0], 0.4, 0.4))
    neighbor = np.arange(16) ^ 1
    assert 0.01 < share < 0.99 and np.any(labels != labels[neighbor])
    mixed, soft = (share * each + (1 - share) * each[neighbor] for each in (x, targets))
    logits, _ = Network("bn_relu").apply(variables, jnp.float32(mixed), train=True, mutable=["batch_stats"])
    _, metrics = train_step(state)
    soft = 0.8 * soft + 0.2 / 4
    expected = -np.mean(np.sum(soft * nn.log_softmax(logits), -1))
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_the_average_follows_the_parameters(images):
    state, train_step, _ = training(images, average_decay=0.9)
    expected = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
    for step in range(3):
        state, _ = train_step(state)
        decay = min(0.9, (1 + step) / (10 + step))
        now = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
        expected = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, expected, now)  # noqa: B023
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.average, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"statistics_batch": 5}, "statistics_batch x accumulate, 5 x 1, got 16"),
        ({"statistics_batch": 8, "accumulate": 4}, "8 x 4, got 16"),
        ({"accumulate": 2}, "without statistics_batch it must be 1"),
        ({"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1, got 1.0"),
        ({"average_decay": -0.1}, "average_decay must be at least 0"),
        ({"mixup": -1.0}, "mixup=-1.0 and batch_size=16"),
    ],
)
def test_a_batch_that_cannot_be_grouped_is_an_error(settings, message):
    with pytest.raises(ValueError, match=message):
        StepSettings(**settings).groups(16)


def test_mixup_takes_pairs():
    with pytest.raises(ValueError, match=r"images in pairs: got mixup=0\.2 and batch_size=15"):
        StepSettings(mixup=0.2).groups(15)


def test_groups_that_devices_cannot_share_are_an_error():
    with pytest.raises(ValueError, match=r"3 groups .* over 8 devices"):
        data_mesh(groups=3)


def test_the_batch_is_split_over_the_devices(images):
    state, _, step = training(images, "evonorm_b0", devices=8, dropout=0.5)
    batch = next(resident_feed(images, Batching(16, 16, crop=6, flip=True), KEY, data_mesh()).batches(0))
    program = step.lower(state, batch, KEY).compile().as_text()
    # The feature maps of a device hold 16 / 8 examples, and gradients are added up.
    assert re.search(r"f32\[(1,)?2,6,6,8\]", program) and not re.search(r"f32\[(1,)?16,6,6,8\]", program)
    assert "all-reduce" in program


def test_what_a_step_draws_depends_on_its_number_alone(images):
    """Three steps from the state after two are steps three to five, crops and dropout included."""
    state, train_step, _ = training(images, dropout=0.5)
    losses = []
    for number in range(5):
        if number == 2:
            kept = jax.device_get(state)
        state, metrics = train_step(state)
        losses.append(float(metrics["loss"]))
    again = []
    state = jax.device_put(kept, state.step.sharding)
    for _ in range(3):
        state, metrics = train_step(state)
        again.append(float(metrics["loss"]))
    assert again == losses[2:]


@pytest.mark.parametrize(("dropout", "crop", "varies"), [(0.5, 8, True), (0.0, 6, True), (0.0, 8, False)])
def test_crops_and_dropout_change_from_step_to_step(images, dropout, crop, varies):
    """One image, 64 times, and a network that does not learn: nothing else can change the loss."""
    image, label = images.train.images[:1], images.train.labels[:1]
    repeated = data.ImageSet(np.maximum(image, image[:, :, ::-1]).repeat(64, 0), label.repeat(64))
    state, train_step, _ = training(
        images._replace(train=repeated), "evonorm_s0", dropout=dropout, crop=crop, rate=0.0
    )
    losses = []
    for _ in range(3):
        state, metrics = train_step(state)
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == (3 if varies else 1)


def test_cross_entropy_and_correct_answers():
    logits = jnp.array([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]])
    log_p = np.asarray(nn.log_softmax(logits))
    targets = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], np.float32)
    np.testing.assert_allclose(cross_entropy(logits, targets), -np.sum(targets * log_p, axis=1), rtol=1e-5)
    hard = cross_entropy(logits, one_hot(jnp.array([0, 1]), 3))
    np.testing.assert_allclose(hard, [-log_p[0, 0], -log_p[1, 1]], rtol=1e-5)
    assert correct(logits, jnp.array([0, 1])).tolist() == [True, False]
    # The largest of NaNs is number 0.
    lost = jnp.array([[jnp.nan] * 3, [jnp.inf, 0.0, 0.0]])
    assert correct(lost, jnp.array([0, 0])).tolist() == [False, False]


@pytest.fixture(scope="module")
def evaluate(images):
    """Evaluates a state on the validation part of 23 images; 9 of 32 are filling."""
    mesh = data_mesh()
    feed = resident_feed(images, Batching(16, 16, crop=8, flip=False), KEY, mesh)
    run = make_evaluate(Network("bn_relu"), feed.images, mesh)

    def on_mesh(state, *stop):
        state = jax.device_put(jax.device_get(state), replicated(mesh))
        return run(state, feed.evaluation("validation"), *stop)

    return on_mesh


@pytest.mark.parametrize("average", [False, True])
def test_evaluation_counts_every_image_once(images, evaluate, average):
    state, _, _ = training(images)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    if average:
        variables["params"] = jax.tree.map(lambda leaf: leaf * 0.5, state.params)
        state = state._replace(average=variables)
    found = evaluate(state)
    x = data.normalize(images.validation.images, images.mean, images.std)
    logits = Network("bn_relu").apply(jax.device_get(variables), x, train=False)
    labels = images.validation.labels
    assert found["accuracy"] == pytest.approx(np.mean(np.argmax(logits, -1) == labels))
    expected = np.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize(("batches", "empty"), [(1, True), (2, False)])
def test_an_evaluation_can_be_stopped_between_two_batches(images, evaluate, batches, empty):
    """The validation part is two batches."""
    state, _, _ = training(images)
    asked = itertools.count()
    found = evaluate(state, lambda: next(asked) >= batches)
    assert next(asked) == 2 and (found == {}) == empty


def test_an_image_without_finite_logits_is_wrong(images, evaluate):
    state, _, _ = training(images)
    lost = state._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, state.params))
    found = evaluate(lost)
    assert found["accuracy"] == 0 and np.isnan(found["loss"])


@pytest.mark.parametrize("size", [0, 12])
def test_a_batch_that_cannot_be_split_is_an_error(size):
    with pytest.raises(ValueError, match=f"batch_size must be a multiple of .* devices, 8, got {size}"):
        check_divisible("batch_size", size, data_mesh())
