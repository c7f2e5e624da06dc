"""The devices of a TPU slice as XLA:TPU's compiler sees them, on a machine without one.

`libtpu` has the compiler and describes the slice. Programs can be lowered and compiled for the devices of the
description, which cannot run them.

GPUs are left out. JAX 0.10.2 with its CUDA plugin describes one on a machine without one, if
`get_topology_desc(platform="cuda", topology="1x1x1", target_config=TEXT)` is given the text of XLA's
GpuTargetConfigProto. It reports no FLOPs or bytes, and cuDNN's workspaces are unknown until a GPU tunes them.
"""

import contextlib
import os
from typing import NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from evonorms_jax.lowering.chips import CHIPS, Chip, chips_of, topology_name
from evonorms_jax.packages import require

# libtpu reads these when it is loaded, and XLA_FLAGS at every compilation. Without the others it looks for a
# TPU host and its metadata server, and a second process on a machine fails on a lock file.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    # A flag for another backend that libtpu does not know would end the process.
    "XLA_FLAGS": "",
}


class Topology(NamedTuple):
    """A slice to compile for.

    Attributes:
      name: name of the topology, such as "v5e:2x4".
      chip: data sheet of one device. A device of v4 is one of the two TensorCores of a chip and has half of
        its speed and memory.
      devices: the devices, which exist for the compiler only.
    """

    name: str
    chip: Chip
    devices: list[jax.Device]

    @property
    def alone(self) -> SingleDeviceSharding:
        """The whole array on the first device."""
        return SingleDeviceSharding(self.devices[0])


def get_topology(name: str) -> Topology:
    """The topology of a slice. JAX itself runs on the CPU from here on.

    Args:
      name: topology or accelerator type, see `topology_name`.

    Raises:
      ValueError: if the name is unknown.
      ModuleNotFoundError: if libtpu is not installed.
    """
    name = topology_name(name)
    require(("libtpu",), "compiling for a TPU", install="evonorms-jax[compile]")
    jax.config.update("jax_platforms", "cpu")
    jax.devices()  # reads XLA_FLAGS for the CPU
    # A slice of one chip is not a multiple of the host that is the default.
    alone = {"chips_per_host_bounds": (1, 1, 1)} if chips_of(name) == 1 else {}
    with libtpu_environment():
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name, **alone).devices
    chip = CHIPS[name.partition(":")[0]]
    share = chips_of(name) / len(devices)
    chip = chip._replace(flops=chip.flops * share, bandwidth=chip.bandwidth * share, hbm=chip.hbm * share)
    return Topology(name, chip, list(devices))


@contextlib.contextmanager
def libtpu_environment():
    """libtpu's variables while it is loaded or compiles. Later processes must not inherit them."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
