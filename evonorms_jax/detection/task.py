"""The task of a detector: from a config to pure functions, bound to their data and keys."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from evonorms_jax.data import Share
from evonorms_jax.detection.anchors import level_anchors
from evonorms_jax.detection.annotations import Categories
from evonorms_jax.detection.coco import open_coco
from evonorms_jax.detection.detector import DetectorSettings, build_detector
from evonorms_jax.detection.evaluation import Evaluator
from evonorms_jax.detection.forward import Choices, DetectionSettings
from evonorms_jax.detection.proposals import ProposalSettings
from evonorms_jax.detection.regions import SamplingSettings
from evonorms_jax.detection.roi_align import RoiAlign
from evonorms_jax.detection.settings import CocoSettings
from evonorms_jax.detection.train_step import make_detect, make_init, make_train_step
from evonorms_jax.detection.types import MASK_SIDE, Detections, TrainingBatch
from evonorms_jax.errors import UserError
from evonorms_jax.layers import norm_act
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.training.classification import (
    compute_dtype,
    length,
    make_mesh,
    shapes_on,
    step_settings,
)
from evonorms_jax.training.mesh import put_batch, replicated, split
from evonorms_jax.training.optimizer import OptimizerSettings, make_optimizer
from evonorms_jax.training.steps import Metrics, TrainState
from evonorms_jax.training.task import Criterion, Task, about


def build_task(config: ConfigDict, devices: list[jax.Device] | None = None) -> Task:
    """The task of a config; traced once, so that a config that cannot be trained fails here.

    Args:
      config: config with the keys of `experiments/configs/detect_digits.py`.
      devices: devices to train on, by default all devices of all hosts.

    Raises:
      ValueError: if a setting is out of range or unknown, or the data cannot be read.
      ModuleNotFoundError: if the extra `coco` is not installed.
      DataNotFoundError: if the data are missing.
    """
    check_ranges(config, "detection")
    mesh = make_mesh(config, devices)
    settings = CocoSettings(**config.data.to_dict())
    share = Share(jax.process_index(), jax.process_count())
    stream = open_coco(settings, order_seed=config.seed, share=share)
    programs = make_programs(config, stream.categories, stream.sizes["train"], mesh)
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    jax.eval_shape(programs.train_step, programs.state, programs.batch, train_key)
    evaluator = Evaluator(programs.detect, stream, mesh, config.eval_batch_size, settings.threads)

    def batches(start):
        return (put_batch(mesh, batch) for batch in stream.train_batches(config.batch_size, start))

    return Task(
        init=functools.partial(programs.init, init_key),
        train_step=functools.partial(programs.train_step, key=train_key),
        batches=batches,
        evaluate=evaluator.evaluate,
        learning_rate=programs.schedule,
        target=programs.state,
        steps=programs.steps,
        about=about(config, stream.name),
        criterion=Criterion("box_AP"),
        illustrate=evaluator.illustrate,
        identity={"categories": stream.categories.to_json()},
    )


class Programs(NamedTuple):
    """The jitted functions of a training, with the shapes and shardings of their arguments."""

    init: Callable[[jax.Array], TrainState]
    train_step: Callable[..., tuple[TrainState, Metrics]]
    detect: Callable[[TrainState, jax.Array, jax.Array], Detections]
    state: TrainState  # shapes
    batch: TrainingBatch  # shapes
    schedule: optax.Schedule  # learning rate by the number of a step
    steps: int


def make_programs(config: ConfigDict, categories: Categories, train_size: int, mesh: Mesh) -> Programs:
    """The functions of a training, independent of its images; errors as `build_task`.

    Args:
      config: config with the keys of `experiments/configs/detect_digits.py`.
      categories: categories of the data.
      train_size: number of training images, which sets the length of an epoch.
      mesh: devices of the training. They may exist for a compiler only.
    """
    steps = length(config, train_size)
    settings = DetectorSettings(**config.model.to_dict())
    layer = norm_act(**config.layer)
    detector = build_detector(settings, layer, categories.num_classes + 1, compute_dtype(config))
    optimizer, schedule = make_optimizer(
        OptimizerSettings(**config.optimizer), steps=steps, batch_size=config.batch_size, images=train_size
    )
    choices = _choices(config, settings, categories)
    init = make_init(detector, optimizer, mesh)
    step = make_train_step(detector, optimizer, mesh, step_settings(config), choices)
    state = shapes_on(jax.eval_shape(init, jax.random.key(0)), replicated(mesh))
    batch = shapes_on(batch_shapes(config.batch_size, config.data.canvas, config.data.slots), split(mesh))
    return Programs(init, step, make_detect(detector, mesh, choices), state, batch, schedule, steps)


def batch_shapes(size: int, side: int, slots: int) -> TrainingBatch:
    """The shapes of a batch of so many images on a canvas of a side, each with so many object slots."""
    shapes = {
        "images": ((side, side, 3), jnp.uint8),
        "sizes": ((2,), jnp.float32),
        "boxes": ((slots, 4), jnp.float32),
        "classes": ((slots,), jnp.int32),
        "masks": ((slots, MASK_SIDE, MASK_SIDE), jnp.uint8),
        "valid": ((slots,), jnp.bool_),
    }
    return TrainingBatch(
        **{name: jax.ShapeDtypeStruct((size, *shape), dtype) for name, (shape, dtype) in shapes.items()}
    )


def _choices(config: ConfigDict, settings: DetectorSettings, categories: Categories) -> Choices:
    canvas, largest = config.data.canvas, settings.levels[1]
    if canvas % 2**largest:
        raise UserError(
            f"data.canvas must be a multiple of {2**largest}, the stride of level {largest}, got {canvas}"
        )
    return Choices(
        level_anchors(canvas, settings.all_levels(), settings.anchor_size),
        ProposalSettings(**config.proposals),
        SamplingSettings(**config.sampling),
        RoiAlign(**config.roi_align),
        DetectionSettings(**config.detections),
        categories.classes,
    )
