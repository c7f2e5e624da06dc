"""The programs of a training on the mesh that its config makes over a slice."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from evonorms_jax.data import DataSettings
from evonorms_jax.lowering.programs import TpuProgram
from evonorms_jax.lowering.stand_ins import images_to_compile_with
from evonorms_jax.lowering.topology import Topology
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.training.classification import make_mesh, make_programs, shapes_on
from evonorms_jax.training.mesh import replicated, split
from evonorms_jax.training.steps import Images, evaluated_variables, make_sums


def training_programs(config: ConfigDict, topology: Topology) -> list[TpuProgram]:
    """Initialization, training step and evaluation.

    Args:
      config: config with the keys of `experiments/configs/train.py`.
      topology: slice to train on.

    Raises:
      ValueError: if the config cannot be trained on the slice.
      DataNotFoundError: if the data set is neither well-known nor there.
    """
    check_ranges(config, "training")
    mesh = make_mesh(config, topology.devices)
    found = images_to_compile_with(DataSettings(**config.data))
    side, channels = found.train.images.shape[2:]
    images = Images((side, side, channels), found.num_classes, found.mean, found.std)
    programs = make_programs(config, images, len(found.train.images), mesh)
    shapes = ((config.eval_batch_size, side, side, channels), np.uint8), ((config.eval_batch_size,), np.int32)
    batch = [jax.ShapeDtypeStruct(*shape, sharding=split(mesh)) for shape in shapes]
    weights = jax.ShapeDtypeStruct(batch[1].shape, np.float32, sharding=split(mesh))
    sums = make_sums(programs.model, images, mesh)
    evaluation = functools.partial(sums.lower, evaluated_variables(programs.state), (*batch, weights))
    return [
        *start_and_step(programs, config, mesh, narrower="model.width"),
        TpuProgram("evaluation", evaluation, "eval_batch_size", images=config.eval_batch_size),
    ]


def start_and_step(
    programs: Any,
    config: ConfigDict,
    mesh: Mesh,
    *,
    narrower: str,
    step: str = "training step",
    trips: Mapping[str, float] = {},
) -> list[TpuProgram]:
    """The programs that every kind of training has: the initialization and the step.

    Args:
      programs: record with the functions `init` and `train_step`, and shapes of a `state` and a `batch`.
      config: config of the training.
      mesh: devices of the training.
      narrower: setting to lower if the parameters do not fit.
      step: name of the step.
      trips: iterations of its loops beside that over the parts of a batch, see `TpuProgram`.
    """
    key = shapes_on(jax.eval_shape(jax.random.key, 0), replicated(mesh))
    return [
        TpuProgram("initialization", functools.partial(programs.init.lower, key), narrower),
        TpuProgram(
            step,
            functools.partial(programs.train_step.lower, programs.state, programs.batch, key),
            "batch_size (or raise accumulate)",
            images=config.batch_size,
            trips={**trips, r"jit\(train_step\)/while$": config.accumulate},
        ),
    ]
