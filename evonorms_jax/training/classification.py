"""The task of a classifier: from a config to pure functions, bound to their data and keys."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh, Sharding
from ml_collections import ConfigDict

from evonorms_jax.data import DataSettings, ImageData, Share, load_images, open_stream
from evonorms_jax.errors import UserError
from evonorms_jax.layers import norm_act
from evonorms_jax.models import build_model
from evonorms_jax.runs.ranges import COUNT, check_ranges
from evonorms_jax.training.feed import Batching, Feed, resident_feed, stream_feed
from evonorms_jax.training.mesh import check_divisible, data_mesh, replicated, split
from evonorms_jax.training.optimizer import OptimizerSettings, make_optimizer
from evonorms_jax.training.steps import (
    Images,
    Metrics,
    StepSettings,
    TrainState,
    make_evaluate,
    make_init,
    make_train_step,
)
from evonorms_jax.training.task import Task, about

DTYPES = ("float32", "bfloat16")


def build_task(config: ConfigDict, devices: list[jax.Device] | None = None) -> Task:
    """The task of a config; traced once, so that a config that cannot be trained fails here.

    Args:
      config: config with the keys of `experiments/configs/train.py`.
      devices: devices to train on, by default all devices of all hosts.

    Raises:
      ValueError: if a setting is out of range or unknown, or the data cannot be read.
      DataNotFoundError: if the data are missing.
    """
    check_ranges(config, "training")
    mesh = make_mesh(config, devices)
    init_key, train_key, data_key = jax.random.split(jax.random.key(config.seed), 3)
    feed = make_feed(config, data_key, mesh)
    programs = make_programs(config, feed.images, feed.sizes["train"], mesh)
    jax.eval_shape(programs.train_step, programs.state, programs.batch, train_key)
    evaluate = make_evaluate(programs.model, feed.images, mesh)
    return Task(
        init=functools.partial(programs.init, init_key),
        train_step=functools.partial(programs.train_step, key=train_key),
        batches=feed.batches,
        evaluate=lambda state, part, stop: evaluate(state, feed.evaluation(part), stop),
        learning_rate=programs.schedule,
        target=programs.state,
        steps=programs.steps,
        about=about(config, feed.name),
    )


class Programs(NamedTuple):
    """The jitted functions of a training, with the shapes and shardings of their arguments."""

    model: nn.Module
    init: Callable[[jax.Array], TrainState]  # of `make_init`
    train_step: Callable[..., tuple[TrainState, Metrics]]  # of `make_train_step`
    state: TrainState  # shapes
    batch: tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]  # images and labels of a step
    schedule: optax.Schedule  # learning rate by the number of a step
    steps: int


def make_mesh(config: ConfigDict, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh of a config over devices, by default all of all hosts; errors as `build_task`."""
    mesh = data_mesh(devices, groups=step_settings(config).groups(config.batch_size))
    for name in ("batch_size", "eval_batch_size"):
        check_divisible(name, config[name], mesh)
    return mesh


def make_programs(config: ConfigDict, images: Images, train_size: int, mesh: Mesh) -> Programs:
    """The functions of a training, independent of its images; errors as `build_task`.

    Args:
      config: config with the keys of `experiments/configs/train.py`.
      images: shape of the images and number of classes.
      train_size: number of training images, which sets the length of an epoch.
      mesh: devices of the training. They may exist for a compiler only.
    """
    steps = length(config, train_size)
    model = _make_model(config, images.num_classes)
    optimizer, schedule = make_optimizer(
        OptimizerSettings(**config.optimizer), steps=steps, batch_size=config.batch_size, images=train_size
    )
    init = make_init(model, optimizer, images, mesh, average=bool(config.average_decay))
    step = make_train_step(model, optimizer, images, mesh, step_settings(config))
    pixels = (config.batch_size, config.data.crop, config.data.crop, images.shape[-1])
    batch = jax.ShapeDtypeStruct(pixels, jnp.uint8), jax.ShapeDtypeStruct(pixels[:1], jnp.int32)
    state = jax.eval_shape(init, jax.random.key(0))
    return Programs(
        *(model, init, step, shapes_on(state, replicated(mesh)), shapes_on(batch, split(mesh))),
        *(schedule, steps),
    )


def shapes_on(tree: Any, sharding: Sharding) -> Any:
    """Shapes of the leaves of a tree, all with one sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def step_settings(config: ConfigDict) -> StepSettings:
    """The settings of a step that are keys of the config. A task that lacks one has its default."""
    return StepSettings(**{name: config[name] for name in StepSettings._fields if name in config})


def make_feed(
    config: ConfigDict,
    key: jax.Array,
    mesh: Mesh,
    *,
    batch_size: int | None = None,
    check: Callable[[ImageData], None] = lambda data: None,
) -> Feed:
    """The images of `config.data`, held on the devices or streamed; errors as `build_task`.

    Args:
      config: config with the groups and keys of `experiments/configs/train.py` that concern images.
      key: consumed by images held on the devices. A stream uses `config.seed`.
      mesh: devices of the training.
      batch_size: images of a step, by default those of the config.
      check: raises an error for images held on the devices that cannot be used.
    """
    settings = DataSettings(**config.data.to_dict())
    batching = Batching(batch_size or config.batch_size, config.eval_batch_size, settings.crop, settings.flip)
    if not settings.stream:
        data = load_images(settings, with_test=True)
        check(data)
        return resident_feed(data, batching, key, mesh)
    share = Share(jax.process_index(), jax.process_count())
    return stream_feed(open_stream(settings, order_seed=config.seed, share=share), batching, mesh)


def length(config: ConfigDict, images: int) -> int:
    """The number of steps of a training on so many images. Raises `ValueError` if it is no count."""
    steps = config.steps if config.epochs is None else round(config.epochs * images / config.batch_size)
    if not COUNT.holds(steps):
        raise UserError(f"steps must be {COUNT.describe(steps)}, got {steps}")
    return steps


def compute_dtype(config: ConfigDict) -> jnp.dtype:
    """The dtype of the activations. Raises `ValueError` if it is unknown."""
    if config.dtype not in DTYPES:
        raise UserError(f"unknown dtype {config.dtype!r}; there are {', '.join(DTYPES)}")
    return jnp.dtype(config.dtype)


def _make_model(config: ConfigDict, num_classes: int) -> nn.Module:
    dtype, layer = compute_dtype(config), norm_act(**config.layer)
    return build_model(**config.model, norm_act=layer, num_classes=num_classes, dtype=dtype)
