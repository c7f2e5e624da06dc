"""ResNets that give the features of every stage to a pyramid.

In the form "v1" the ReLU follows the sum of a block, as in the published detectors. In the form "v2" the
layer precedes the convolutions, as in the released EvoNorm networks; there the features of a stage are read
after the next layer, since the sum itself grows with depth. Strided convolutions are padded SAME.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.detection.blocks import KERNEL_INIT, Bottleneck, Residual
from evonorms_jax.detection.sites import Sites
from evonorms_jax.errors import UserError
from evonorms_jax.models.classifier import NormActConstructor
from evonorms_jax.models.convolution import Conv, max_pool
from evonorms_jax.models.resnet import BottleneckBlock, ResNetStage

#: The blocks of a stage: those of `blocks.py`, or the pre-activation block of the classifiers.
BLOCKS = ("bottleneck", "residual", "preactivation")


class PyramidResNet(nn.Module):
    """A ResNet without classifier: features by level, where level l has stride 2^l."""

    norm_act: NormActConstructor
    stages: Sequence[ResNetStage]  # or tuples of their fields
    block: str = "bottleneck"  # in `BLOCKS`
    stem_features: int = 64
    stem_kernel: int = 7
    stem_pool: bool = True  # whether a max-pool of stride 2 follows the stem, whose stride is 2
    dtype: Any = jnp.float32
    remat: bool = False  # whether the backward pass recomputes the stages, to save memory

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[int, jax.Array]:
        """Maps `[B, H, W, 3]` to maps `[B, H / 2^l, W / 2^l, C_l]` by level l, one for each stage."""
        if self.block not in BLOCKS:
            raise UserError(f"unknown block {self.block!r}; there are {', '.join(BLOCKS)}")
        sites = Sites(self.norm_act, self.dtype, train)
        stage_type = nn.remat(_Stage) if self.remat else _Stage
        x = Conv(
            self.stem_features, self.stem_kernel, 2, dtype=self.dtype, kernel_init=KERNEL_INIT, name="stem"
        )(images.astype(self.dtype))
        if self.block != "preactivation":
            x = sites.pair("norm_stem")(x)
        x = max_pool(x, 3, stride=2) if self.stem_pool else x
        level, found = (2 if self.stem_pool else 1), {}
        for number, stage in enumerate(map(ResNetStage._make, self.stages), 1):
            x, tapped = stage_type(sites, self.block, stage, name=f"stage_{number}")(x)
            if tapped is not None and number > 1:
                found[level] = tapped
            level += stage.stride // 2
            if self.block != "preactivation":
                found[level] = x
        if self.block == "preactivation":
            found[level] = sites.pair("norm_final")(x)
        return found


class _Stage(nn.Module):
    """The blocks of a stage: the last sum, and of pre-activation blocks the first layer's output."""

    sites: Sites
    block: str
    stage: ResNetStage

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        tapped = None
        for number in range(self.stage.blocks):
            stride, name = self.stage.stride if number == 0 else 1, f"block_{number + 1}"
            if self.block != "preactivation":
                kind = Bottleneck if self.block == "bottleneck" else Residual
                x = kind(self.sites, self.stage.width, stride, name=name)(x)
                continue
            block = BottleneckBlock(
                *(self.sites.norm_act, self.stage.width, stride, self.sites.dtype), tap=True, name=name
            )
            x, first = block(x, train=self.sites.train)
            tapped = first if number == 0 else tapped
        return x, tapped
