"""The places of a norm in a detector, and the layer of a part of it that has no norm.

A pair is a norm with its activation, and gets the injected layer. A linear site is a norm after which the
network stays linear, and gets the affine form: for an EvoNorm a scale and a bias, for a baseline its norm.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.models.classifier import NormActConstructor


@dataclass(frozen=True)
class Sites:
    """Makes the layers of the sites of a module, inside its compact method."""

    norm_act: NormActConstructor
    dtype: Any  # of the activations
    train: bool  # whether batch statistics are the batch's own

    def pair(self, name: str) -> nn.Module:
        """The layer at a pair."""
        return self.norm_act(use_running_average=not self.train, dtype=self.dtype, name=name)

    def linear(self, name: str) -> nn.Module:
        """The layer at a linear site."""
        return self.norm_act.affine(use_running_average=not self.train, dtype=self.dtype, name=name)


class _Pointwise(nn.Module):
    """ReLU, or the identity, in the place of a layer."""

    nonlinearity: bool

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        y = nn.relu(x) if self.nonlinearity else x
        return y if mask is None else jnp.where(mask[..., None], y, 0)


@dataclass(frozen=True)
class WithoutNorm:
    """The `norm_act` of a part without norms: ReLU at a pair, the identity at a linear site."""

    def __call__(self, *, use_running_average: bool, dtype: Any, name: str) -> nn.Module:
        """ReLU."""
        del use_running_average, dtype
        return _Pointwise(nonlinearity=True, name=name)

    def affine(self, *, use_running_average: bool, dtype: Any, name: str) -> nn.Module:
        """The identity."""
        del use_running_average, dtype
        return _Pointwise(nonlinearity=False, name=name)

    norm = affine  # the identity too


def nearest(x: jax.Array, ratio: int) -> jax.Array:
    """Repeats each feature of `[B, H, W, C]` `ratio` times along H and W."""
    if ratio == 1:
        return x
    batch, height, width, channels = x.shape
    repeated = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, ratio, width, ratio, channels))
    return repeated.reshape(batch, ratio * height, ratio * width, channels)
