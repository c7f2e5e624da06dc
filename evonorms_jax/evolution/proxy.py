"""The proxy task: train one candidate on one anchor, in one program on the device. N training images."""

import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evonorms_jax.data import EvalBatches, ImageData, batch_indices, eval_batches, normalize, random_crop_flip
from evonorms_jax.layers import LayerConstructor
from evonorms_jax.layers.universal import UniversalNormAct, restart_statistics
from evonorms_jax.models.networks import Network
from evonorms_jax.search_space.encoding import PAPER, EncodedGraph, InstructionSet, encode
from evonorms_jax.training.optimizer import make_schedule, optimizer_named
from evonorms_jax.training.steps import correct, cross_entropy, one_hot


class ProxySettings(NamedTuple):
    """How a candidate is trained: the keys of `config.proxy`, and `crop` and `flip` of `config.data`.

    `replicas` is the number of seeds with which a candidate that passes the tests is trained. The tests use
    the first of them. `optimizer` is a name in `training.optimizer.OPTIMIZERS`: the paper's is SGD.
    `init_scale` multiplies the start weights of the network's body. With 1 the network has its own
    initialization. Below 1 a signal shrinks from site to site, unless the layers normalize it.
    """

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
    optimizer: str = "sgd"
    init_scale: float = 1.0


class ProxyData(NamedTuple):
    """The data set on the device: training images as one array, validation images in whole batches."""

    images: jax.Array  # uint8 [N, H, W, C]
    labels: jax.Array  # int32 [N]
    validation: EvalBatches
    mean: jax.Array  # [C]
    std: jax.Array  # [C]


class ProxyState(NamedTuple):
    """The state of a training."""

    params: Any
    stats: Any
    optimizer: Any
    step: jax.Array  # int32 scalar: number of steps done
    loss: jax.Array  # float32 scalar: loss of the last step


class ProxyTask(NamedTuple):
    """The proxy task of one anchor as pure functions of a candidate.

    A candidate is an EncodedGraph, which may be traced, or a Graph, for which the program is specialized.
    Both have the same states (`UniversalNormAct`).

    Attributes:
      init: `(candidate, key) -> ProxyState` before the first step.
      train: `(candidate, state, data, key, stop) -> ProxyState` after `stop` steps, or after the first step
        whose loss was not finite. The same key gives the same batches and crops.
      accuracy: `(candidate, state, data) -> float32 scalar`: validation accuracy in [0, 1], on whole images
        with the moving statistics. An image whose logits are not finite counts as wrong.
      loss: `(candidate, params, stats, images, labels) -> (loss, stats)`, on cropped and normalized images.
      encode: `(Graph) -> EncodedGraph` for the instruction set of the task.
    """

    init: Callable[..., ProxyState]
    train: Callable[..., ProxyState]
    accuracy: Callable[..., jax.Array]
    loss: Callable[..., tuple[jax.Array, Any]]
    encode: Callable[..., EncodedGraph]


def restart(template: ProxyState, encoded: EncodedGraph) -> ProxyState:
    """The start of another candidate: the same weights, moving statistics that fit its graph."""
    return template._replace(stats=restart_statistics(template.stats, encoded))


def is_body_kernel(path: Sequence[Any]) -> bool:
    """Whether the keys are those of a kernel before the classifier, of a convolution or a dense layer."""
    names = [key.key for key in path]
    return names[-1] == "kernel" and names[0] != "classifier"


def proxy_data(data: ImageData, eval_batch_size: int) -> ProxyData:
    """The training and validation parts in the form that the programs read, still on the host."""
    validation = eval_batches(data.validation, eval_batch_size)
    return ProxyData(data.train.images, data.train.labels, validation, data.mean, data.std)


def anchor_keys(seed: int, name: str, replica: int = 0) -> tuple[jax.Array, jax.Array]:
    """The keys of an anchor's weights and of its batches and crops.

    They depend on the seed, the anchor's name and the number of the replica alone, so other anchors in the
    config change nothing. CRC-32 makes a number of the name, since Python's own hash of a text differs
    between processes.
    """
    # Programs that draw weights with rbg are built in a third of the time.
    key = jax.random.fold_in(jax.random.key(seed, impl="rbg"), zlib.crc32(name.encode()))
    if replica:
        key = jax.random.fold_in(key, replica)
    init_key, train_key = jax.random.split(key)
    return init_key, train_key


def make_proxy_task(
    anchor: Network,
    num_classes: int,
    layer_fields: dict[str, Any],
    settings: ProxySettings,
    channels: int,
    instructions: InstructionSet = PAPER,
) -> ProxyTask:
    """Builds the pure functions of the proxy task. Nothing is compiled here.

    Args:
      anchor: network to train.
      num_classes: number of classes.
      layer_fields: fields of the layer, such as `group_size`.
      settings: settings of the training.
      channels: number of channels of the images.
      instructions: ops that an encoded candidate may have.

    Raises:
      ValueError: if the optimizer or the schedule is unknown, or the warm-up is longer than the training.
    """
    layer_fields = layer_fields | {"instructions": instructions}
    task = _Task(anchor, num_classes, layer_fields, settings, channels)
    encoder = functools.partial(encode, instructions=instructions)
    return ProxyTask(task.init, task.train, task.accuracy, task.loss, encoder)


class _Task:
    """The functions of `ProxyTask`; arguments as `make_proxy_task`, with the fields of `UniversalNormAct`."""

    def __init__(self, anchor, num_classes, layer_fields, settings, channels):
        self._anchor, self._num_classes, self._layer_fields = anchor, num_classes, layer_fields
        self._settings, self._channels = settings, channels
        schedule = make_schedule(
            learning_rate=settings.learning_rate,
            steps=settings.steps,
            schedule=settings.schedule,
            warmup_steps=settings.warmup_steps,
        )
        self._optimizer = optimizer_named(settings.optimizer)(
            schedule, momentum=settings.momentum, weight_decay=settings.weight_decay
        )

    def _network(self, candidate):
        layer = functools.partial(UniversalNormAct, candidate=candidate, **self._layer_fields)
        return self._anchor.build(LayerConstructor(layer), self._num_classes)

    def init(self, candidate, key):
        crop = self._settings.crop
        image = jnp.zeros((1, crop, crop, self._channels), jnp.float32)
        variables = self._network(candidate).init(key, image, train=True)
        params, stats = variables["params"], variables.get("batch_stats", {})
        if self._settings.init_scale != 1:
            params = jax.tree_util.tree_map_with_path(self._scaled, params)
        return ProxyState(params, stats, self._optimizer.init(params), jnp.int32(0), jnp.float32(0))

    def _scaled(self, path, leaf):
        return leaf * self._settings.init_scale if is_body_kernel(path) else leaf

    def loss(self, candidate, params, stats, images, labels):
        variables = {"params": params, "batch_stats": stats}
        network = self._network(candidate)
        logits, updated = network.apply(variables, images, train=True, mutable=["batch_stats"])
        value = jnp.mean(cross_entropy(logits, one_hot(labels, self._num_classes)))
        return value, updated.get("batch_stats", {})

    def _update(self, candidate, params, stats, state, data, key, step):
        settings = self._settings
        batch_key, crop_key = jax.random.split(key)
        chosen = batch_indices(batch_key, step, len(data.images), settings.batch_size)
        crops = random_crop_flip(
            jax.random.fold_in(crop_key, step), data.images[chosen], settings.crop, settings.flip
        )
        images = normalize(crops, data.mean, data.std)
        of_params = jax.value_and_grad(self.loss, argnums=1, has_aux=True)
        (value, stats), gradient = of_params(candidate, params, stats, images, data.labels[chosen])
        change, state = self._optimizer.update(gradient, state, params)
        return jax.tree.map(jnp.add, params, change), stats, state, value

    def train(self, candidate, state, data, key, stop):
        def unfinished(state):
            return (state.step < stop) & jnp.isfinite(state.loss)

        def step(state):
            *variables, value = self._update(candidate, *state[:3], data, key, state.step)
            return ProxyState(*variables, state.step + 1, value)

        return jax.lax.while_loop(unfinished, step, state)

    def accuracy(self, candidate, state, data):
        variables = {"params": state.params, "batch_stats": state.stats}

        def add(total, batch):
            images = normalize(batch.images, data.mean, data.std)
            logits = self._network(candidate).apply(variables, images, train=False)
            return total + jnp.sum(correct(logits, batch.labels) * batch.weights), None

        right, _ = jax.lax.scan(add, jnp.float32(0), data.validation)
        return right / jnp.sum(data.validation.weights)
