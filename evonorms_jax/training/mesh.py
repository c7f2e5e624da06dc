"""Data-parallel training: the placement of all arrays on the devices.

A computation under `jit` has the same result on any mesh. A batch consists of groups that have batch
statistics of their own. Each row of the mesh is a set of devices that share a group.
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
    """Connects this process to the others that train the same network. Call it before touching a device.

    Arguments and errors are those of `rendezvous.connect`.
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
    """A mesh `[group, member]` over D devices, by default all devices of all hosts.

    `groups` is the number of groups of images that a step works on at a time. Raises `ValueError` unless it
    is a multiple or a divisor of D.
    """
    devices = jax.devices() if devices is None else devices
    rows = math.gcd(groups, len(devices))
    if rows not in (groups, len(devices)):
        raise UserError(
            f"{groups} groups of images with batch statistics of their own cannot be laid evenly over "
            f"{len(devices)} devices: change statistics_batch, batch_size or accumulate"
        )
    # With Explicit axes, the default, every operation on a batch would have to state its result's sharding.
    kinds = (AxisType.Auto, AxisType.Auto)
    shape = (rows, len(devices) // rows)
    return jax.make_mesh(shape, (GROUP, MEMBER), axis_types=kinds, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device: parameters, statistics, the data set."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis divided over the devices: a batch."""
    return NamedSharding(mesh, PartitionSpec((GROUP, MEMBER)))


def grouped(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Groups along `axis`, and the images of a group along the next axis."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, GROUP, MEMBER))


def put_batch(mesh: Mesh, tree: Any) -> Any:
    """Puts host arrays `[b, ...]`, each host's own share, on the devices along the first axis."""
    place = split(mesh)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(place, np.asarray(leaf)), tree)


def local_rows(tree: Any) -> Any:
    """The rows `[b, ...]` of arrays that are divided along the first axis, those of this host, in NumPy."""

    def rows(array):
        shards = {shard.index[0].start or 0: shard for shard in array.addressable_shards}
        return np.concatenate([np.asarray(shards[start].data) for start in sorted(shards)])

    return jax.tree.map(rows, tree)


def check_divisible(name: str, size: int, mesh: Mesh) -> None:
    """Raises `ValueError` unless a batch of `size` can be divided evenly over the mesh."""
    if size < 1 or size % mesh.size:
        raise UserError(f"{name} must be a multiple of the number of devices, {mesh.size}, got {size}")
