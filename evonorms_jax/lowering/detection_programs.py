"""The programs of the training of a detector, on the mesh that its config makes over a slice."""

import functools

import jax
import numpy as np
from ml_collections import ConfigDict

from evonorms_jax.detection.annotations import Categories
from evonorms_jax.detection.nms import SCOPE
from evonorms_jax.detection.settings import DIGITS
from evonorms_jax.detection.task import make_programs
from evonorms_jax.lowering.programs import TpuProgram
from evonorms_jax.lowering.topology import Topology
from evonorms_jax.lowering.training_programs import start_and_step
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.training.classification import make_mesh
from evonorms_jax.training.mesh import split

_COCO_IMAGES = 117_266  # of train2017 with an object
_COCO_CLASSES, _DIGIT_CLASSES = 80, 10
_LARGEST_COCO_ID = 90
_ROUNDS = 8  # a guess at the rounds of a suppression, whose number depends on the boxes


def detection_programs(config: ConfigDict, topology: Topology) -> list[TpuProgram]:
    """Initialization, training step and evaluation, without the data.

    Args:
      config: config with the keys of `experiments/configs/detect_digits.py`.
      topology: slice to train on.

    Raises:
      ValueError: if the config cannot be trained on the slice.
    """
    check_ranges(config, "detection")
    mesh = make_mesh(config, topology.devices)
    programs = make_programs(config, _categories(config), _COCO_IMAGES, mesh)
    size, side = config.eval_batch_size, config.data.canvas
    images = jax.ShapeDtypeStruct((size, side, side, 3), np.uint8, sharding=split(mesh))
    sizes = jax.ShapeDtypeStruct((size, 2), np.float32, sharding=split(mesh))
    trips = {rf"{SCOPE}\b.*/while$": _ROUNDS}
    return [
        *start_and_step(programs, config, mesh, narrower="model.features", trips=trips),
        TpuProgram(
            "evaluation",
            functools.partial(programs.detect.lower, programs.state, images, sizes),
            "eval_batch_size",
            images=size,
            trips=trips,
        ),
    ]


def _categories(config: ConfigDict) -> Categories:
    """Categories that stand in for those of the data."""
    count = _DIGIT_CLASSES if config.data.source == DIGITS else _COCO_CLASSES
    ids = (*range(1, count), _LARGEST_COCO_ID)
    return Categories(ids, tuple(map(str, ids)), config.data.raw_ids and config.data.source != DIGITS)
