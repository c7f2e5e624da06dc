"""SpineNet: a backbone whose blocks change resolution freely and merge two earlier blocks each.

A block has a level, and reads the sum of two parents resampled to its resolution and width. Its endpoints at
levels 3 to 7 replace a feature pyramid. Source: Du et al. 2020 (arXiv 1912.05027), and its released code.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.detection.blocks import KERNEL_INIT, Bottleneck, Residual
from evonorms_jax.detection.sites import Sites, nearest
from evonorms_jax.errors import UserError
from evonorms_jax.models.classifier import NormActConstructor
from evonorms_jax.models.convolution import Conv, max_pool
from evonorms_jax.models.resnet import EXPANSION

LEVELS = (3, 7)  # the least and the largest level of the endpoints
_SIDE_UNIT = 2 ** LEVELS[1]  # every level has whole features if the sides are multiples of it
_WIDTHS = {2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}  # width f of a block by its level


class BlockSpec(NamedTuple):
    """A block of the published topology."""

    level: int
    bottleneck: bool  # its output has 4f channels, otherwise f
    parents: tuple[int, int]  # numbers of earlier blocks; 0 and 1 are the two of the stem
    output: bool = False  # whether an endpoint follows


#: The blocks after the stem's two, numbered from 2 on.
BLOCKS = (
    BlockSpec(2, True, (0, 1)),
    BlockSpec(4, False, (0, 1)),
    BlockSpec(3, True, (2, 3)),
    BlockSpec(4, True, (2, 4)),
    BlockSpec(6, False, (3, 5)),
    BlockSpec(4, True, (3, 5)),
    BlockSpec(5, False, (6, 7)),
    BlockSpec(7, False, (6, 8)),
    BlockSpec(5, True, (8, 9)),
    BlockSpec(5, True, (8, 10)),
    BlockSpec(4, True, (5, 10), True),
    BlockSpec(3, True, (4, 10), True),
    BlockSpec(5, True, (7, 12), True),
    BlockSpec(7, True, (5, 14), True),
    BlockSpec(6, True, (12, 14), True),
)
_STEM = (BlockSpec(2, True, (-1, -1)),) * 2


class SpineNet(nn.Module):
    """The backbone with its endpoints: features by level, as a feature pyramid has them."""

    norm_act: NormActConstructor
    alpha: float = 0.5  # width of a resampled parent before it takes the block's width, in its own widths
    repeats: int = 1  # units of each block, one after the other
    features: int = 256  # channels of the endpoints
    filter_scale: float = 1.0  # multiplies the widths
    merge_activation: str = "relu"  # after merging two parents: "relu", or "norm_act" for the injected layer
    dtype: Any = jnp.float32
    remat: bool = False  # whether the backward pass recomputes the blocks, to save memory

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[int, jax.Array]:
        """Maps `[B, H, W, 3]` to maps `[B, H / 2^l, W / 2^l, features]` by level l.

        Raises `ValueError` unless both sides are multiples of 128.
        """
        if images.shape[1] % _SIDE_UNIT or images.shape[2] % _SIDE_UNIT:
            raise UserError(
                f"SpineNet needs sides that are multiples of {_SIDE_UNIT}, got {images.shape[1]} x "
                f"{images.shape[2]}"
            )
        if self.merge_activation not in ("relu", "norm_act"):
            raise UserError(f"merge_activation must be relu or norm_act, got {self.merge_activation!r}")
        sites = Sites(self.norm_act, self.dtype, train)
        group = nn.remat(_Group) if self.remat else _Group
        specs, outputs = _STEM + BLOCKS, []
        x = self._conv(64, 7, 2, "stem")(images.astype(self.dtype))
        x = max_pool(sites.pair("norm_stem")(x), 3, stride=2)
        for number, spec in enumerate(specs):
            if number >= len(_STEM):
                x = self._merge(sites, number, spec, outputs)
            x = group(sites, spec.bottleneck, self._width(spec), self.repeats, name=f"block_{number}")(x)
            outputs.append(x)
        found = {}
        for number, spec in enumerate(specs):
            if spec.output:
                x = self._conv(self.features, 1, 1, f"endpoint_{spec.level}")(outputs[number])
                found[spec.level] = sites.pair(f"norm_endpoint_{spec.level}")(x)
        return dict(sorted(found.items()))

    def _width(self, spec: BlockSpec) -> int:
        return int(_WIDTHS[spec.level] * self.filter_scale)

    def _merge(self, sites: Sites, number: int, spec: BlockSpec, outputs) -> jax.Array:
        """The input of a block: its resampled parents, and unread earlier blocks if it is an output."""
        specs = _STEM + BLOCKS
        target = self._width(spec) * (EXPANSION if spec.bottleneck else 1)
        x = sum(
            self._resample(sites, outputs[parent], specs[parent], spec.level, target, f"block_{number}_{i}")
            for i, parent in enumerate(spec.parents)
        )
        for other in unread(number) if spec.output else ():
            if outputs[other].shape == x.shape:
                x = x + outputs[other]
        if self.merge_activation == "relu":
            return nn.relu(x)
        return sites.pair(f"norm_merge_{number}")(x)

    def _resample(self, sites: Sites, x, parent: BlockSpec, level: int, features: int, name: str):
        """A parent's features at the resolution of a level, with `features` channels, A at the end."""
        width = int(self.alpha * x.shape[-1] / (EXPANSION if parent.bottleneck else 1))
        x = self._conv(width, 1, 1, f"{name}_in")(x)
        x = sites.pair(f"{name}_norm_in")(x)
        if level > parent.level:
            ratio = 2 ** (level - parent.level)
            x = self._conv(width, 3, 2, f"{name}_down")(x)
            x = sites.pair(f"{name}_norm_down")(x)
            if ratio > 2:
                x = max_pool(x, 3 if ratio <= 4 else 5, stride=ratio // 2)
        # Published code enlarges first. The 1x1 convolution and the norm give the same values before it,
        # since repeating features evenly changes no moment, for a fraction of the work.
        x = sites.linear(f"{name}_norm_out")(self._conv(features, 1, 1, f"{name}_out")(x))
        return nearest(x, 2 ** max(0, parent.level - level))

    def _conv(self, features, kernel, stride, name):
        return Conv(features, kernel, stride, dtype=self.dtype, kernel_init=KERNEL_INIT, name=name)


class _Group(nn.Module):
    """The units of a block. The first has a projection where the width changes, in the stem alone."""

    sites: Sites
    bottleneck: bool
    width: int
    repeats: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kind = Bottleneck if self.bottleneck else Residual
        for number in range(self.repeats):
            x = kind(self.sites, self.width, name=f"unit_{number + 1}")(x)
        return x


def unread(number: int) -> list[int]:
    """Earlier blocks without a child before block `number`. An output block merges those of its shape."""
    specs: Mapping[int, BlockSpec] = dict(enumerate(_STEM + BLOCKS))
    read = {parent for i in range(len(_STEM), number + 1) for parent in specs[i].parents}
    return [i for i in range(number) if i not in read and not specs[i].output]
