"""The three heads of a Mask R-CNN: proposals, classes and boxes, masks.

B images, N regions of each, C channels of the pyramid, K outputs with background as the first, R anchors at
a place. Convolutions have biases. Outputs are float32.
Sources: He et al. 2017 (arXiv 1703.06870), section 3.1. Wu and He 2018 (arXiv 1803.08494) for the box head of
four convolutions. Initial values are those of the released TPU detection code.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.detection.sites import Sites
from evonorms_jax.models.classifier import NormActConstructor
from evonorms_jax.models.convolution import Conv, fan_out_normal


class ProposalHead(nn.Module):
    """The region proposal network: a shared 3x3 convolution, N for each level, scores and box codes."""

    norm_act: NormActConstructor
    features: int = 256
    anchors: int = 3  # R
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pyramid: Mapping[int, jax.Array], *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Logits `[B, A]` and codes `[B, A, 4]` of all A anchors, in the order of `level_anchors`."""
        sites = Sites(self.norm_act, self.dtype, train)
        init = nn.initializers.normal(0.01)
        make = functools.partial(Conv, use_bias=True, dtype=self.dtype, kernel_init=init)
        shared = make(self.features, 3, name="conv")
        score = make(self.anchors, 1, name="score")
        code = make(4 * self.anchors, 1, name="code")
        logits, codes = [], []
        for level, x in sorted(pyramid.items()):
            x = sites.pair(f"norm_{level}")(shared(x))
            logits.append(score(x).reshape(len(x), -1))
            codes.append(code(x).reshape(len(x), -1, 4))
        return tuple(jnp.concatenate(one, 1).astype(jnp.float32) for one in (logits, codes))


class BoxHead(nn.Module):
    """3x3 convolutions with N, fully connected layers with N, then class logits and box codes.

    A fully connected layer's output has the shape `[B N, 1, 1, F]` at its N, so that every region is an
    instance of its own, and statistics of an instance never mix regions.
    """

    norm_act: NormActConstructor
    outputs: int  # K
    convs: int = 4
    features: int = 256  # channels of the convolutions
    dense: int = 1  # number of fully connected layers
    dense_features: int = 1024
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Maps `[B, N, S, S, C]` to logits `[B, N, K]` and codes `[B, N, K, 4]`.

        `valid`, bool `[B, N]`, keeps empty regions out of all statistics.
        """
        sites, shape = Sites(self.norm_act, self.dtype, train), x.shape[:2]
        x, mask = x.reshape(-1, *x.shape[2:]), _mask(valid)
        for number in range(1, self.convs + 1):
            conv = Conv(self.features, 3, use_bias=True, dtype=self.dtype, name=f"conv_{number}")
            x = sites.pair(f"norm_{number}")(conv(x), mask=mask)
        x = x.reshape(len(x), 1, 1, -1)
        for number in range(1, self.dense + 1):
            x = self._dense(self.dense_features, nn.initializers.glorot_uniform(), f"dense_{number}")(x)
            x = sites.pair(f"norm_dense_{number}")(x, mask=mask)
        logits = self._dense(self.outputs, nn.initializers.normal(0.01), "class")(x)
        codes = self._dense(4 * self.outputs, nn.initializers.normal(0.001), "code")(x)
        logits, codes = logits.astype(jnp.float32), codes.astype(jnp.float32)
        return logits.reshape(*shape, -1), codes.reshape(*shape, -1, 4)

    def _dense(self, features, init, name):
        return nn.Dense(features, dtype=self.dtype, kernel_init=init, name=name)


class MaskHead(nn.Module):
    """3x3 convolutions with N, a 2x2 transposed convolution with N, and one map for each class."""

    norm_act: NormActConstructor
    outputs: int  # K
    convs: int = 4
    features: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array, classes: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[B, N, S, S, C]` to mask logits `[B, N, 2S, 2S]` of the class `[B, N]` of each region."""
        sites, shape = Sites(self.norm_act, self.dtype, train), x.shape[:2]
        x, mask = x.reshape(-1, *x.shape[2:]), _mask(valid)
        for number in range(1, self.convs + 1):
            conv = Conv(self.features, 3, use_bias=True, dtype=self.dtype, name=f"conv_{number}")
            x = sites.pair(f"norm_{number}")(conv(x), mask=mask)
        x = TransposedConv(self.features, dtype=self.dtype, name="conv_up")(x)
        x = sites.pair("norm_up")(x, mask=mask)
        maps = Conv(self.outputs, 1, use_bias=True, dtype=self.dtype, name="mask")(x).astype(jnp.float32)
        chosen = jnp.take_along_axis(maps, classes.reshape(-1, 1, 1, 1), axis=-1)[..., 0]
        return chosen.reshape(*shape, *chosen.shape[1:])


def _mask(valid: jax.Array) -> jax.Array:
    """The mask `[B N, 1, 1]` of the valid regions.

    Without any valid region all count as valid, since moments over an empty set are NaN.
    """
    return (valid | ~jnp.any(valid)).reshape(-1, 1, 1)


class TransposedConv(nn.Module):
    """A 2x2 transposed convolution of stride 2: every feature becomes a square of 2x2."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, 2H, 2W, features]`."""
        batch, height, width, channels = x.shape
        # Fan-out of a layer whose windows do not overlap: each feature is in 2x2 outputs.
        kernel = self.param("kernel", fan_out_normal(), (2, 2, channels, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        squares = jnp.einsum("bhwc,ijco->bhiwjo", x.astype(self.dtype), kernel.astype(self.dtype))
        y = squares.reshape(batch, 2 * height, 2 * width, self.features)
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)
