"""Steps of the training of a classifier: pure functions of its state, jitted over a mesh.

N training images `[N, H, W, C]`, B batch size, P side of a crop, K classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from evonorms_jax.data import EvalBatches, ImageData, batch_indices, normalize, random_crop_flip
from evonorms_jax.training.mesh import replicated, split


class TrainState(NamedTuple):
    """All that a training changes."""

    step: jax.Array  # int32 scalar: steps done
    params: Any
    batch_stats: Any  # moving statistics, {} for a layer without
    opt_state: Any


class TrainingSet(NamedTuple):
    """The training part on the devices, and the moments that normalise any part."""

    images: jax.Array  # uint8 [N, H, W, C]
    labels: jax.Array  # int32 [N]
    mean: jax.Array  # float32 [C]
    std: jax.Array  # float32 [C]


class Batching(NamedTuple):
    """How a batch is drawn from the training set."""

    batch_size: int
    crop: int  # P; the side of the images takes them whole
    flip: bool


Metrics = dict[str, jax.Array]  # scalars by name


def training_set(data: ImageData, mesh: Mesh) -> TrainingSet:
    """Puts the training part on every device of the mesh, whole."""
    return jax.device_put(TrainingSet(*data.train, data.mean, data.std), replicated(mesh))


def make_init(
    model: nn.Module, optimizer: optax.GradientTransformation, data: ImageData, mesh: Mesh
) -> Callable[[jax.Array], TrainState]:
    """Builds `init(key) -> TrainState` before the first step; it consumes the key."""

    def init(key):
        image = jnp.zeros((1, *data.train.images.shape[1:]), jnp.float32)
        variables = model.init(key, image, train=False)
        params, stats = variables["params"], variables.get("batch_stats", {})
        return TrainState(jnp.int32(0), params, stats, optimizer.init(params))

    return jax.jit(init, out_shardings=replicated(mesh))


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    batching: Batching,
    mesh: Mesh,
    *,
    label_smoothing: float = 0.0,
) -> Callable[[TrainState, TrainingSet, jax.Array], tuple[TrainState, Metrics]]:
    """Builds `train_step(state, training_set, key) -> (state, metrics)`.

    The key is that of the whole training: what a step draws depends on it and the number of the step alone,
    so a training can be resumed at any step. The state given is donated. Metrics are the loss
    (cross-entropy, labels smoothed, without weight decay) and the accuracy on the step's own batch.
    """

    def train_step(state, data, key):
        order_key, noise_key = jax.random.split(key)
        crop_key, dropout_key = jax.random.split(jax.random.fold_in(noise_key, state.step))
        chosen = batch_indices(order_key, state.step, len(data.images), batching.batch_size)
        images = random_crop_flip(crop_key, data.images[chosen], batching.crop, batching.flip)
        images, labels = jax.lax.with_sharding_constraint((images, data.labels[chosen]), split(mesh))
        images = normalize(images, data.mean, data.std)

        def loss_of(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            logits, updated = model.apply(
                variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": dropout_key}
            )
            loss = jnp.mean(cross_entropy(logits, labels, label_smoothing))
            return loss, (logits, updated.get("batch_stats", {}))

        (loss, (logits, stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        change, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, change)
        metrics = {"loss": loss, "accuracy": jnp.mean(_right(logits, labels))}
        return TrainState(state.step + 1, params, stats, opt_state), metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=replicated(mesh))


def make_evaluate(
    model: nn.Module, data: ImageData, mesh: Mesh
) -> Callable[[TrainState, EvalBatches], dict[str, float]]:
    """Builds `evaluate(state, batches) -> {"loss", "accuracy"}`: means over all images.

    Whole images, the moving statistics, no label smoothing. An image whose logits are not finite is wrong.
    """

    @jax.jit
    def sums(state, images, labels, weights):
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        logits = model.apply(variables, normalize(images, data.mean, data.std), train=False)
        each = {"loss": cross_entropy(logits, labels), "accuracy": _right(logits, labels)}
        return {name: jnp.sum(values * weights) for name, values in each.items()}

    def evaluate(state, batches):
        totals = {"loss": 0.0, "accuracy": 0.0}
        for batch in zip(*batches, strict=True):
            # Fetched one by one: CPU devices can deadlock over collectives that nobody waits for.
            part = jax.device_get(sums(state, *jax.device_put(batch, split(mesh))))
            totals = {name: totals[name] + float(part[name]) for name in totals}
        return {name: total / float(batches.weights.sum()) for name, total in totals.items()}

    return evaluate


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """-sum_k t_k log softmax(logits)_k of `[B, K]`, `[B]`: `[B]`, with t = (1 - s) one_hot(label) + s / K."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def _right(logits: jax.Array, labels: jax.Array) -> jax.Array:
    # The largest of NaNs is number 0, which is some image's class.
    return (jnp.argmax(logits, -1) == labels) & jnp.all(jnp.isfinite(logits), -1)
