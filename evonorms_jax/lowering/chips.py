"""TPU chips by their data sheets, and the slices of a Cloud TPU by their names."""

import difflib
import math
import re
from typing import NamedTuple

from evonorms_jax.errors import UserError


class Chip(NamedTuple):
    """Numbers of one chip.

    Attributes:
      name: the generation, such as "v5e".
      accelerator: the accelerator type without its size, such as "v5litepod".
      cores: TensorCores.
      flops: peak FLOP/s in bfloat16.
      bandwidth: bytes/s between HBM and the chip.
      hbm: bytes of HBM.
      axes: axes of a slice, 2 or 3.
    """

    name: str
    accelerator: str
    cores: int
    flops: float
    bandwidth: float
    hbm: float
    axes: int


# Source: the tables of chip specifications in cloud.google.com/tpu/docs/v4, v5e, v5p and v6e, November 2026.
# Newer versions round the bandwidths of v5e and v6e, 819 and 1640 GB/s, to 800 and 1600.
# A bound needs the larger number. The pages say GB of HBM where the compiler counts in GiB.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", "v4", 2, 275e12, 1200e9, 32 * 2**30, 3),
        Chip("v5e", "v5litepod", 1, 197e12, 819e9, 16 * 2**30, 2),
        Chip("v5p", "v5p", 2, 459e12, 2765e9, 95 * 2**30, 3),
        Chip("v6e", "v6e", 1, 918e12, 1640e9, 32 * 2**30, 2),
    )
}
_SLICES = {
    2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    3: ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
}


def topology_name(name: str) -> str:
    """The topology of a slice, such as "v5e:2x4".

    Args:
      name: a topology, or an accelerator type of Cloud TPU. "v5litepod-8", "v5e-8" and "v6e-8" count chips,
        "v4-8" and "v5p-8" count TensorCores, two to a chip.

    Raises:
      ValueError: if it is unknown. The message has the nearest known names.
    """
    topologies = {f"{chip.name}:{sides}": chip for chip in CHIPS.values() for sides in _SLICES[chip.axes]}
    accelerators = {}
    for topology, chip in topologies.items():
        size = chips_of(topology) * (chip.cores if chip.axes == 3 else 1)
        accelerators |= {f"{kind}-{size}": topology for kind in (chip.accelerator, chip.name)}
    if name in topologies:
        return name
    if name in accelerators:
        return accelerators[name]
    # Of the same generation first: "v5e:3x3" is nearer to "v5e:2x4" than to "v6e:4x4".
    known = [*topologies, *accelerators]
    own = [other for other in known if other.startswith(re.split("[:-]", name)[0])]
    near = difflib.get_close_matches(name, own or known, n=3, cutoff=0)
    raise UserError(f"unknown topology {name!r}: the nearest are {', '.join(near)}")


def chips_of(topology: str) -> int:
    """Number of chips of a topology name."""
    return math.prod(map(int, topology.partition(":")[2].split("x")))
