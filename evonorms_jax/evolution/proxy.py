"""The proxy task: train one candidate on one anchor, in one program on the device.

R replicas (seeds of the anchor), N training images, B batch, n validation batches.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evonorms_jax.data import EvalBatches, ImageData, batch_indices, eval_batches, normalize, random_crop_flip
from evonorms_jax.layers import LayerConstructor
from evonorms_jax.layers.universal import UniversalNormAct, restart_statistics
from evonorms_jax.models.networks import Network
from evonorms_jax.search_space.encoding import EncodedGraph
from evonorms_jax.training.optimizer import make_schedule, sgd
from evonorms_jax.training.steps import correct, cross_entropy, one_hot


class ProxySettings(NamedTuple):
    """How a candidate is trained; the keys of `config.proxy`, and the crop of `config.data`."""

    steps: int
    batch_size: int
    learning_rate: float
    schedule: str
    warmup_steps: int
    momentum: float
    weight_decay: float
    replicas: int
    eval_batch_size: int
    crop: int
    flip: bool


class ProxyData(NamedTuple):
    """The data set on the device: training images as one array, validation in whole batches."""

    images: jax.Array  # uint8 [N, H, W, C]
    labels: jax.Array  # int32 [N]
    validation: EvalBatches
    mean: jax.Array  # [C]
    std: jax.Array  # [C]


class ProxyState(NamedTuple):
    """A training under way; every leaf of the first three has a leading axis R."""

    params: Any
    stats: Any
    optimizer: Any
    step: jax.Array  # int32 scalar: steps done
    loss: jax.Array  # float32 [R]: of the last step


class ProxyTask(NamedTuple):
    """The proxy task of one anchor as pure functions of a candidate.

    A candidate is an EncodedGraph, which may be traced, or a Graph, to which the program is then specialised.
    The states are the same (`UniversalNormAct`).

    Attributes:
      init: `(candidate, key) -> ProxyState` before the first step.
      train: `(candidate, state, data, key, stop) -> ProxyState` after `stop` steps, or after the first step
        whose loss was not finite. The same key gives the same batches and crops.
      accuracy: `(candidate, state, data) -> float32 scalar`: validation accuracy in [0, 1] on whole images
        with the moving statistics, mean over the replicas. An image whose logits are not finite counts as
        wrong.
      loss: `(candidate, params, stats, images, labels) -> (loss, stats)` of one replica on images that are
        cropped and normalised.
    """

    init: Callable[..., ProxyState]
    train: Callable[..., ProxyState]
    accuracy: Callable[..., jax.Array]
    loss: Callable[..., tuple[jax.Array, Any]]


def _over_replicas(function: Callable[..., Any], in_axes: tuple[int | None, ...], count: int):
    """`jax.vmap` over `count` replicas.

    Of a single one no axis is made: mapped, the slices of the universal layer become gathers and scatters,
    which check each index, though they are not mapped.
    """
    if count > 1:
        return jax.vmap(function, in_axes)

    def alone(*arguments):
        picked = (
            jax.tree.map(lambda leaf: leaf[0], argument) if axis == 0 else argument
            for axis, argument in zip(in_axes, arguments, strict=True)
        )
        return jax.tree.map(lambda leaf: leaf[None], function(*picked))

    return alone


def restart(template: ProxyState, encoded: EncodedGraph) -> ProxyState:
    """The start of another candidate: weights do not depend on it, the moving statistics do."""
    return template._replace(stats=restart_statistics(template.stats, encoded))


def proxy_data(data: ImageData, eval_batch_size: int) -> ProxyData:
    """The training and validation parts as the programs take them, still on the host."""
    validation = eval_batches(data.validation, eval_batch_size)
    return ProxyData(data.train.images, data.train.labels, validation, data.mean, data.std)


def make_proxy_task(
    anchor: Network,
    num_classes: int,
    layer_fields: dict[str, Any],
    settings: ProxySettings,
    channels: int,
) -> ProxyTask:
    """Builds the pure functions of the proxy task; nothing is compiled here.

    Args:
      anchor: the network.
      num_classes: number of classes.
      layer_fields: fields of the layer, such as `group_size`.
      settings: see `ProxySettings`.
      channels: channels of the images.
    """
    schedule = make_schedule(
        learning_rate=settings.learning_rate,
        steps=settings.steps,
        schedule=settings.schedule,
        warmup_steps=settings.warmup_steps,
    )
    optimizer = sgd(schedule, momentum=settings.momentum, weight_decay=settings.weight_decay)

    def network(candidate):
        layer = functools.partial(UniversalNormAct, candidate=candidate, **layer_fields)
        return anchor.build(LayerConstructor(layer), num_classes)

    def init(candidate, key):
        image = jnp.zeros((1, settings.crop, settings.crop, channels), jnp.float32)

        def one(key):
            variables = network(candidate).init(key, image, train=True)
            params, stats = variables["params"], variables.get("batch_stats", {})
            return params, stats, optimizer.init(params)

        params, stats, state = jax.vmap(one)(jax.random.split(key, settings.replicas))
        return ProxyState(params, stats, state, jnp.int32(0), jnp.zeros(settings.replicas, jnp.float32))

    def loss(candidate, params, stats, images, labels):
        variables = {"params": params, "batch_stats": stats}
        logits, updated = network(candidate).apply(variables, images, train=True, mutable=["batch_stats"])
        value = jnp.mean(cross_entropy(logits, one_hot(labels, num_classes)))
        return value, updated.get("batch_stats", {})

    def update(candidate, params, stats, state, data, key, step):
        batch_key, crop_key = jax.random.split(key)
        chosen = batch_indices(batch_key, step, len(data.images), settings.batch_size)
        crops = random_crop_flip(
            jax.random.fold_in(crop_key, step), data.images[chosen], settings.crop, settings.flip
        )
        images = normalize(crops, data.mean, data.std)
        of_params = jax.value_and_grad(loss, argnums=1, has_aux=True)
        (value, stats), gradient = of_params(candidate, params, stats, images, data.labels[chosen])
        change, state = optimizer.update(gradient, state, params)
        return jax.tree.map(jnp.add, params, change), stats, state, value

    def train(candidate, state, data, key, stop):
        keys = jax.random.split(key, settings.replicas)
        all_replicas = _over_replicas(update, (None, 0, 0, 0, None, 0, None), settings.replicas)

        def unfinished(state):
            return (state.step < stop) & jnp.all(jnp.isfinite(state.loss))

        def step(state):
            *variables, value = all_replicas(candidate, *state[:3], data, keys, state.step)
            return ProxyState(*variables, state.step + 1, value)

        return jax.lax.while_loop(unfinished, step, state)

    def accuracy(candidate, state, data):
        def one(params, stats, batch):
            images = normalize(batch.images, data.mean, data.std)
            variables = {"params": params, "batch_stats": stats}
            logits = network(candidate).apply(variables, images, train=False)
            return jnp.sum(correct(logits, batch.labels) * batch.weights)

        def add(total, batch):
            right = _over_replicas(one, (0, 0, None), settings.replicas)(state.params, state.stats, batch)
            return total + jnp.mean(right), None

        right, _ = jax.lax.scan(add, jnp.float32(0), data.validation)
        return right / jnp.sum(data.validation.weights)

    return ProxyTask(init, train, accuracy, loss)
