"""From a config to the pure functions of a training, bound to their data and keys."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh, Sharding
from ml_collections import ConfigDict

from evonorms_jax import data
from evonorms_jax.layers import norm_act
from evonorms_jax.models import get_model
from evonorms_jax.runs.ranges import COUNT, check_ranges
from evonorms_jax.training.feed import Batching, Feed, resident_feed, stream_feed
from evonorms_jax.training.mesh import check_divisible, data_mesh, replicated, split
from evonorms_jax.training.optimizer import make_optimizer, make_schedule
from evonorms_jax.training.steps import (
    Images,
    Metrics,
    StepSettings,
    TrainState,
    make_evaluate,
    make_init,
    make_train_step,
)

DTYPES = ("float32", "bfloat16")


class Task(NamedTuple):
    """The training that a config describes, without files or screen."""

    init: Callable[[], TrainState]
    batches: Callable[[int], Iterator[Any]]  # from the number of a step on
    train_step: Callable[[TrainState, Any], tuple[TrainState, Metrics]]  # donates the state
    evaluate: Callable[..., dict[str, float]]  # (state, part[, stop]); {} of an empty part, or once stop()
    learning_rate: optax.Schedule
    target: TrainState  # shapes and shardings of the state
    steps: int
    data: str  # name of the data set


def build_task(config: ConfigDict, devices: list[jax.Device] | None = None) -> Task:
    """The task of a config; traced once, so that what cannot be trained fails here.

    Args:
      config: `experiments/configs/train.py` says what the keys mean.
      devices: by default all of all hosts.

    Raises:
      ValueError: if the config asks for what is not there.
      DataNotFoundError: if the data are not there.
    """
    check_ranges(config, "training")
    mesh = make_mesh(config, devices)
    init_key, train_key, data_key = jax.random.split(jax.random.key(config.seed), 3)
    feed = make_feed(config, data_key, mesh)
    programs = make_programs(config, feed.images, feed.sizes["train"], mesh)
    evaluate = make_evaluate(programs.model, feed.images, mesh)
    jax.eval_shape(programs.train_step, programs.state, programs.batch, train_key)
    return Task(
        init=lambda: programs.init(init_key),
        batches=feed.batches,
        train_step=lambda state, batch: programs.train_step(state, batch, train_key),
        evaluate=lambda state, part, *stop: (
            evaluate(state, feed.evaluation(part), *stop) if feed.sizes[part] else {}
        ),
        learning_rate=programs.schedule,
        target=programs.state,
        steps=programs.steps,
        data=feed.name,
    )


class Programs(NamedTuple):
    """The jitted functions of a training, with the shapes and shardings of their arguments.

    Attributes:
      model: network with its layers.
      init: see `make_init`.
      train_step: see `make_train_step`.
      state: shapes of the state.
      batch: shapes of the images and labels of a step.
      schedule: learning rate by the number of a step.
      steps: length of the training.
    """

    model: nn.Module
    init: Callable[[jax.Array], TrainState]
    train_step: Callable[..., tuple[TrainState, Metrics]]
    state: TrainState
    batch: tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]
    schedule: optax.Schedule
    steps: int


def make_mesh(config: ConfigDict, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh of a config over devices, by default all of all hosts. Errors as `build_task`."""
    mesh = data_mesh(devices, groups=_step_settings(config).groups(config.batch_size))
    for name in ("batch_size", "eval_batch_size"):
        check_divisible(name, config[name], mesh)
    return mesh


def make_programs(config: ConfigDict, images: Images, train_size: int, mesh: Mesh) -> Programs:
    """The functions of a training before they meet data. Errors as `build_task`.

    Args:
      config: `experiments/configs/train.py` says what the keys mean.
      images: shape of the images and number of classes.
      train_size: number of training images, which sets the length of an epoch.
      mesh: devices of the training, which may exist for a compiler only.
    """
    steps = _steps(config, train_size)
    model = _make_model(config, images.num_classes)
    optimizer, schedule = _make_optimizer(config, steps, train_size)
    init = make_init(model, optimizer, images, mesh, average=bool(config.average_decay))
    step = make_train_step(model, optimizer, images, mesh, _step_settings(config))
    side = config.data.crop
    batch = ((config.batch_size, side, side, images.shape[-1]), np.uint8), ((config.batch_size,), np.int32)
    return Programs(
        model,
        init,
        step,
        shapes_on(jax.eval_shape(init, jax.random.key(0)), replicated(mesh)),
        tuple(jax.ShapeDtypeStruct(*part, sharding=split(mesh)) for part in batch),
        schedule,
        steps,
    )


def shapes_on(tree: Any, sharding: Sharding) -> Any:
    """Shapes of the leaves of a tree, all with one sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def _step_settings(config: ConfigDict) -> StepSettings:
    return StepSettings(
        statistics_batch=config.statistics_batch,
        accumulate=config.accumulate,
        label_smoothing=config.label_smoothing,
        mixup=config.mixup,
        average_decay=config.average_decay,
    )


def make_feed(config: ConfigDict, key: jax.Array, mesh: Mesh) -> Feed:
    """The images of `config.data`: read into memory, or streamed. Errors as `build_task`."""
    fields = config.data.to_dict()
    crop, flip = fields.pop("crop"), fields.pop("flip")
    streaming = fields.pop("stream")
    options = {name: fields.pop(name) for name in ("augment", "threads", "workers")}
    randaugment = data.RandAugment(**fields.pop("randaugment"))
    batching = Batching(config.batch_size, config.eval_batch_size, crop, flip)
    if not streaming:
        if options["augment"] != "none":
            raise ValueError(f"data.augment={options['augment']} needs data.stream=true")
        images = data.load(**fields, with_test=True)
        return resident_feed(images, batching, key, mesh)
    eval_size = fields.pop("image_size") or crop
    share = {"host": jax.process_index(), "hosts": jax.process_count()}
    stream = data.open_stream(
        **fields,
        **options,
        **share,
        randaugment=randaugment,
        order_seed=config.seed,
        image_size=crop,
        eval_size=eval_size,
        flip=flip,
    )
    return stream_feed(stream, batching, mesh)


def _steps(config: ConfigDict, images: int) -> int:
    steps = config.steps if config.epochs is None else round(config.epochs * images / config.batch_size)
    if not COUNT.holds(steps):
        raise ValueError(f"steps must be {COUNT.describe(steps)}, got {steps}")
    return steps


def _make_model(config: ConfigDict, num_classes: int):
    if config.dtype not in DTYPES:
        raise ValueError(f"unknown dtype {config.dtype!r}; there are {', '.join(DTYPES)}")
    fields = config.model.to_dict()
    network = get_model(fields.pop("name"))
    overrides = {name: value for name, value in fields.items() if value is not None}
    layer = config.layer.to_dict()
    make = norm_act(layer.pop("spec"), **layer)
    return network.build(make, num_classes, dtype=jnp.dtype(config.dtype), **overrides)


def _make_optimizer(
    config: ConfigDict, steps: int, images: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    settings = config.optimizer.to_dict()
    name = settings.pop("name")
    regularization = {key: settings.pop(key) for key in ("momentum", "weight_decay")}
    epochs, reference = settings.pop("warmup_epochs"), settings.pop("reference_batch")
    if epochs is not None:
        settings["warmup_steps"] = round(epochs * images / config.batch_size)
    if reference is not None:
        settings["learning_rate"] *= config.batch_size / reference
    schedule = make_schedule(steps=steps, **settings)
    return make_optimizer(name, schedule, **regularization), schedule
