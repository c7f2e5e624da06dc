"""Data-parallel training: the one place that knows how arrays lie on the devices.

A computation under `jit` means the same on any mesh. A batch is cut into groups that have batch statistics of
their own; a mesh has rows of devices that share a group.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from evonorms_jax.errors import UserError
from evonorms_jax.runs.rendezvous import check_no_pod, check_place, join

GROUP, MEMBER = "group", "member"


def join_hosts(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None, automatic: bool
) -> None:
    """Makes this process one of several that train one network; to be called before devices are touched.

    Args:
      coordinator_address: HOST:PORT of process 0.
      num_processes: how many there are.
      process_id: which one this is.
      automatic: finds all that out where the cluster tells it. Without anything, there is one process.

    Raises:
      ValueError: if that does not fit together, there is no cluster that tells, or this is one host of a pod.
      OSError: if the others cannot be joined now.
    """
    place = coordinator_address, num_processes, process_id
    check_place(*place, automatic)
    if automatic:
        join()
    elif coordinator_address is None:
        check_no_pod()
    elif num_processes > 1:
        join(*place)


def data_mesh(devices: Sequence[jax.Device] | None = None, *, groups: int = 1) -> Mesh:
    """A mesh `[group, member]` over `devices`, by default all of all hosts.

    Args:
      devices: D of them.
      groups: how many groups of images a step works on at a time: a multiple or a divisor of D.

    Raises:
      ValueError: if the groups cannot be laid out evenly.
    """
    devices = jax.devices() if devices is None else devices
    rows = math.gcd(groups, len(devices))
    if rows not in (groups, len(devices)):
        raise UserError(
            f"{groups} groups of images with batch statistics of their own cannot be laid evenly over "
            f"{len(devices)} devices: change statistics_batch, batch_size or accumulate"
        )
    # Explicit axes, the default, would ask every operation on a batch for the sharding of its result.
    kinds = (AxisType.Auto, AxisType.Auto)
    shape = (rows, len(devices) // rows)
    return jax.make_mesh(shape, (GROUP, MEMBER), axis_types=kinds, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device: parameters, statistics, the data set."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis cut over the devices: a batch."""
    return NamedSharding(mesh, PartitionSpec((GROUP, MEMBER)))


def grouped(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Groups along `axis`, their images along the next one."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, GROUP, MEMBER))


def put_batch(mesh: Mesh, tree: Any) -> Any:
    """Host arrays `[b, ...]` on the devices, cut along the first axis; each host gives its own share."""
    place = split(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(place, np.asarray(leaf)), tree)


def check_divisible(name: str, size: int, mesh: Mesh) -> None:
    """Raises `ValueError` unless a batch of `size` can be cut evenly over the mesh."""
    if size < 1 or size % mesh.size:
        raise UserError(f"{name} must be a multiple of the number of devices, {mesh.size}, got {size}")
