"""A step of a training against its formula, and on any number of devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from evonorms_jax import data
from evonorms_jax.layers import norm_act
from evonorms_jax.training.mesh import check_divisible, data_mesh
from evonorms_jax.training.optimizer import sgd
from evonorms_jax.training.steps import (
    Batching,
    cross_entropy,
    make_evaluate,
    make_init,
    make_train_step,
    training_set,
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
    return data.load("synthetic", train_size=64, validation_size=23, image_size=8)


def training(images, layer="bn_relu", *, devices=None, dropout=0.0, crop=6, rate=RATE):
    """The initial state, a function to the next one, and the jitted function in it."""
    mesh = data_mesh(devices)
    model, optimizer = Network(layer, dropout), sgd(lambda _: rate, momentum=0.0, weight_decay=0.0)
    batching = Batching(batch_size=16, crop=crop, flip=True)
    state = make_init(model, optimizer, images, mesh)(KEY)
    step = make_train_step(model, optimizer, batching, mesh)
    examples = training_set(images, mesh)
    return state, lambda state: step(state, examples, KEY), step


def test_a_step_follows_the_gradient_of_its_batch(images):
    """Whole images that look the same in a mirror: nothing is random but the choice of the batch."""
    pixels = images.train.images
    images = images._replace(
        train=images.train._replace(images=np.maximum(pixels, pixels[:, :, ::-1])),
    )
    state, train_step, _ = training(images, crop=8, devices=jax.devices()[:1])
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


def test_eight_devices_do_what_one_does(images):
    histories = []
    for devices in (jax.devices(), jax.devices()[:1]):
        state, train_step, step = training(images, "evonorm_b0", devices=devices, dropout=0.5)
        losses = []
        for _ in range(4):
            state, metrics = train_step(state)
            losses.append(float(metrics["loss"]))
        histories.append((losses, jax.device_get(state)))
        assert step._cache_size() == 1
    (losses, state), (expected_losses, expected) = histories
    assert len(set(losses)) == 4
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state, expected)


def test_the_batch_is_split_over_the_devices(images):
    state, _, step = training(images, "evonorm_b0", dropout=0.5)
    program = step.lower(state, training_set(images, data_mesh()), KEY).compile().as_text()
    # The feature maps of a device hold 16 / 8 examples, and gradients are added up.
    assert re.search(r"f32\[2,6,6,8\]", program) and not re.search(r"f32\[16,6,6,8\]", program)
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


def test_label_smoothing():
    logits = jnp.array([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]])
    labels = jnp.array([0, 1])
    log_p = np.asarray(nn.log_softmax(logits))
    targets = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    expected = -np.sum(targets * log_p, axis=1)
    np.testing.assert_allclose(cross_entropy(logits, labels, 0.3), expected, rtol=1e-5)
    np.testing.assert_allclose(cross_entropy(logits, labels), [-log_p[0, 0], -log_p[1, 1]], rtol=1e-5)


def test_evaluation_counts_every_image_once(images):
    state, _, _ = training(images)
    evaluate = make_evaluate(Network("bn_relu"), images, data_mesh())
    found = evaluate(state, data.eval_batches(images.validation, 16))  # 23 images: 9 of 32 are filling
    x = data.normalize(images.validation.images, images.mean, images.std)
    variables = {"params": jax.device_get(state.params), "batch_stats": jax.device_get(state.batch_stats)}
    logits = Network("bn_relu").apply(variables, x, train=False)
    labels = images.validation.labels
    assert found["accuracy"] == pytest.approx(np.mean(np.argmax(logits, -1) == labels))
    expected = np.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


def test_an_image_without_finite_logits_is_wrong(images):
    state, _, _ = training(images)
    lost = state._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, state.params))
    evaluate = make_evaluate(Network("bn_relu"), images, data_mesh())
    found = evaluate(lost, data.eval_batches(images.validation, 16))
    assert found["accuracy"] == 0 and np.isnan(found["loss"])


@pytest.mark.parametrize("size", [0, 12])
def test_a_batch_that_cannot_be_split_is_an_error(size):
    with pytest.raises(ValueError, match=f"batch_size must be a multiple of .* devices, 8, got {size}"):
        check_divisible("batch_size", size, data_mesh())
