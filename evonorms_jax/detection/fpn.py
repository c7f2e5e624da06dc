"""The feature pyramid network: maps of equal width at every level, each with a view of the coarser ones.

Source: Lin et al. 2017 (arXiv 1612.03144), section 3, in the form of the released TPU code: levels above
the backbone's come from strided convolutions of the level below, and a norm without activation, one for each
level, ends it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.detection.sites import Sites, nearest
from evonorms_jax.errors import UserError
from evonorms_jax.models.classifier import NormActConstructor
from evonorms_jax.models.convolution import Conv

#: The ways to make a level above those of the backbone.
TOPS = ("conv", "pool")
_SMOOTHED_TOP = 7  # the level whose convolution reads its input through a ReLU


class FeaturePyramid(nn.Module):
    """Lateral 1x1, top-down sums, 3x3, levels above, a linear site for each level. Kernels have biases."""

    norm_act: NormActConstructor
    levels: Sequence[int]  # the least and the largest level
    features: int = 256
    top: str = "conv"  # in `TOPS`: 3x3 with stride 2, or every second feature, as a max-pool of size 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Mapping[int, jax.Array], *, train: bool) -> dict[int, jax.Array]:
        """Maps of a backbone by level to maps `[B, H / 2^l, W / 2^l, features]` by level."""
        least, most = self.levels
        if self.top not in TOPS:
            raise UserError(f"unknown top of the pyramid {self.top!r}; there are {', '.join(TOPS)}")
        if least not in maps or least > most:
            raise UserError(
                f"levels must begin at a level from {min(maps)} to {max(maps)}, got {self.levels}"
            )
        sites, last = Sites(self.norm_act, self.dtype, train), min(most, max(maps))
        merged = {}
        for level in range(last, least - 1, -1):
            merged[level] = self._conv(1, 1, f"lateral_{level}")(maps[level])
            if level < last:
                merged[level] += nearest(merged[level + 1], 2)
        found = {
            level: self._conv(3, 1, f"output_{level}")(merged[level]) for level in range(least, last + 1)
        }
        for level in range(last + 1, most + 1):
            below = found[level - 1]
            if self.top == "pool":
                found[level] = below[:, ::2, ::2]
                continue
            below = nn.relu(below) if level == _SMOOTHED_TOP else below
            found[level] = self._conv(3, 2, f"output_{level}")(below)
        return {level: sites.linear(f"norm_{level}")(x) for level, x in found.items()}

    def _conv(self, kernel, stride, name):
        init = nn.initializers.glorot_uniform()
        return Conv(
            *(self.features, kernel, stride), use_bias=True, dtype=self.dtype, kernel_init=init, name=name
        )
