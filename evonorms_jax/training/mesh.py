"""Data-parallel training: the one place that knows how arrays lie on the devices.

A computation under `jit` means the same on any mesh, so batch moments are those of the whole batch.
"""

from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis, `data`, over `devices`, by default all local ones."""
    devices = jax.local_devices() if devices is None else devices
    # Explicit axes, the default, would ask every operation on a batch for the sharding of its result.
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device: parameters, statistics, the data set."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis cut over the devices: a batch."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def check_divisible(name: str, size: int, mesh: Mesh) -> None:
    """Raises `ValueError` unless a batch of `size` can be cut evenly over the mesh."""
    if size < 1 or size % mesh.size:
        raise ValueError(f"{name} must be a multiple of the number of devices, {mesh.size}, got {size}")
