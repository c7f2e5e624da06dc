"""The residual blocks of both networks, in the plain and the deep form, and self-attention.

Brock et al. 2019 (arXiv 1809.11096), appendix B. Every weight is spectrally normalized.

Shapes: maps `[B, H, W, C]`, conditions `[B, Z]`. H and W double or halve in a block that resamples.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.gan.conditional import ConditionalNormAct
from evonorms_jax.gan.spectral import SpectralConv
from evonorms_jax.models.classifier import NormActConstructor
from evonorms_jax.models.convolution import max_pool

#: Channels into a deep block for each channel of its 3x3 convolutions, or out of it in a discriminator.
BOTTLENECK = 4


def upsample(x: jax.Array) -> jax.Array:
    """Each pixel as a square of 2 x 2: `[B, H, W, C]` to `[B, 2 H, 2 W, C]`."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def downsample(x: jax.Array) -> jax.Array:
    """The mean of squares of 2 x 2: `[B, H, W, C]` to `[B, H / 2, W / 2, C]`."""
    batch, height, width, channels = x.shape
    return jnp.mean(x.reshape(batch, height // 2, 2, width // 2, 2, channels), (2, 4))


class _GeneratorBlock(nn.Module):
    """The fields of a block of a generator."""

    norm_act: NormActConstructor
    features: int  # channels of the output
    up: bool
    dtype: Any = jnp.float32

    def _norm(self, name: str, train: bool) -> nn.Module:
        return ConditionalNormAct(self.norm_act, use_running_average=not train, dtype=self.dtype, name=name)


class GeneratorBlock(_GeneratorBlock):
    """Two 3x3 convolutions, each after a layer, and a 1x1 convolution around them."""

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array, *, train: bool) -> jax.Array:
        """Maps x `[B, H, W, C]` to `[B, (2) H, (2) W, features]`."""
        conv = functools.partial(SpectralConv, self.features, dtype=self.dtype)
        grow = upsample if self.up else lambda x: x
        y = grow(self._norm("norm_1", train)(x, condition))
        y = conv(3, name="conv_1")(y)
        y = conv(3, name="conv_2")(self._norm("norm_2", train)(y, condition))
        # A 1x1 convolution and the repetition of pixels commute. This order has a quarter of the products.
        return grow(conv(1, name="shortcut")(x)) + y


class DeepGeneratorBlock(_GeneratorBlock):
    """A bottleneck of two 3x3 convolutions between two 1x1, each after a layer.

    The shortcut keeps the first channels of the input and has no weights.
    """

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array, *, train: bool) -> jax.Array:
        """Maps x `[B, H, W, C]` to `[B, (2) H, (2) W, features]`, with features at most C."""
        hidden = x.shape[-1] // BOTTLENECK
        conv = functools.partial(SpectralConv, dtype=self.dtype)
        grow = upsample if self.up else lambda x: x
        y = conv(hidden, 1, name="conv_1")(self._norm("norm_1", train)(x, condition))
        y = conv(hidden, 3, name="conv_2")(grow(self._norm("norm_2", train)(y, condition)))
        y = conv(hidden, 3, name="conv_3")(self._norm("norm_3", train)(y, condition))
        y = conv(self.features, 1, name="conv_4")(self._norm("norm_4", train)(y, condition))
        return grow(x[..., : self.features]) + y


class _DiscriminatorBlock(nn.Module):
    """The fields of a block of a discriminator."""

    features: int  # channels of the output
    down: bool
    first: bool = False  # whether the input is the image, which a ReLU would cut off at 0
    dtype: Any = jnp.float32


class DiscriminatorBlock(_DiscriminatorBlock):
    """Two 3x3 convolutions, each after a ReLU.

    The shortcut is a 1x1 convolution where the shape changes, or else the identity.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x `[B, H, W, C]` to `[B, H (/ 2), W (/ 2), features]`."""
        conv = functools.partial(SpectralConv, self.features, dtype=self.dtype)
        shrink = downsample if self.down else lambda x: x
        y = conv(3, name="conv_1")(x if self.first else nn.relu(x))
        y = shrink(conv(3, name="conv_2")(nn.relu(y)))
        if self.down or x.shape[-1] != self.features:
            # A 1x1 convolution and the mean of pixels commute. This order has a quarter of the products.
            x = conv(1, name="shortcut")(shrink(x))
        return x + y


class DeepDiscriminatorBlock(_DiscriminatorBlock):
    """A bottleneck of two 3x3 convolutions between two 1x1, each after a ReLU.

    The shortcut keeps the input, and a 1x1 convolution adds the channels that it lacks.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x `[B, H, W, C]` to `[B, H (/ 2), W (/ 2), features]`, with features at least C."""
        hidden = self.features // BOTTLENECK
        conv = functools.partial(SpectralConv, dtype=self.dtype)
        shrink = downsample if self.down else lambda x: x
        y = conv(hidden, 1, name="conv_1")(nn.relu(x))
        y = conv(hidden, 3, name="conv_2")(nn.relu(y))
        y = conv(hidden, 3, name="conv_3")(nn.relu(y))
        y = conv(self.features, 1, name="conv_4")(shrink(nn.relu(y)))
        x = shrink(x)
        missing = self.features - x.shape[-1]
        if missing:
            x = jnp.concatenate([x, conv(missing, 1, name="shortcut")(x)], -1)
        return x + y


class Attention(nn.Module):
    """Self-attention over positions: `x + gamma * o(softmax(theta phi^T) g)`, gamma 0 at the start.

    Zhang et al. 2019 (arXiv 1805.08318), in the form of the released BigGAN: phi and g are max-pooled, and
    the products are not divided by a root.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape. C must be at least 8."""
        batch, height, width, channels = x.shape
        conv = functools.partial(SpectralConv, kernel_size=1, use_bias=False, dtype=self.dtype)
        theta = conv(channels // 8, name="theta")(x).reshape(batch, height * width, -1)
        phi = max_pool(conv(channels // 8, name="phi")(x), 2, stride=2)
        phi = phi.reshape(batch, -1, phi.shape[-1])
        g = max_pool(conv(channels // 2, name="g")(x), 2, stride=2)
        g = g.reshape(batch, -1, g.shape[-1])
        products = jnp.einsum("bqc,bkc->bqk", theta, phi, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(products, -1).astype(self.dtype)
        y = jnp.einsum("bqk,bkc->bqc", weights, g).reshape(batch, height, width, -1)
        gamma = self.param("gamma", nn.initializers.zeros, (), jnp.float32)
        return x + gamma.astype(self.dtype) * conv(channels, name="o")(y)
