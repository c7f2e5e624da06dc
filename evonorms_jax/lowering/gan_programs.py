"""The programs of a generator's training on the mesh that its config makes over a slice."""

import functools

import jax
import numpy as np
from ml_collections import ConfigDict

from evonorms_jax.data import DataSettings
from evonorms_jax.gan.sampling import make_painter, sampled_variables
from evonorms_jax.gan.task import make_mesh, make_programs
from evonorms_jax.lowering.programs import TpuProgram
from evonorms_jax.lowering.stand_ins import images_to_compile_with
from evonorms_jax.lowering.topology import Topology
from evonorms_jax.lowering.training_programs import start_and_step
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.training.classification import shapes_on
from evonorms_jax.training.mesh import replicated, split


def gan_programs(config: ConfigDict, topology: Topology) -> list[TpuProgram]:
    """Initialization, the step of both networks, and sampling.

    Args:
      config: config with the keys of `experiments/configs/gan_digits.py`.
      topology: slice to train on.

    Raises:
      ValueError: if the config cannot be trained on the slice.
      DataNotFoundError: if the data set is neither well-known nor there.
    """
    check_ranges(config, "gan")
    mesh = make_mesh(config, topology.devices)
    found = images_to_compile_with(DataSettings(**config.data))
    programs = make_programs(config, found.num_classes, found.train.images.shape[-1], mesh)
    generator = programs.networks.generator
    size = -(-config.sampling.batch_size // mesh.size) * mesh.size
    shapes = ((size, generator.latent), np.float32), ((size,), np.int32)
    inputs = [jax.ShapeDtypeStruct(*shape, sharding=split(mesh)) for shape in shapes]
    variables = shapes_on(sampled_variables(generator, programs.state), replicated(mesh))
    paint = make_painter(generator, mesh)
    return [
        *start_and_step(programs, config, mesh, narrower="networks.width", step="step of both networks"),
        TpuProgram(
            "sampling", functools.partial(paint.lower, variables, *inputs), "sampling.batch_size", images=size
        ),
    ]
