"""Token networks without attention: MLP-Mixer, and ConvNeXt at one resolution. Beyond the paper.

The sites of the injected layer are those of `patches.py`, and 1 norm at the end.

Shapes: B batch, T tokens, C channels, h x w tokens as a map.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.errors import UserError
from evonorms_jax.models.classifier import Classifier, NormActConstructor
from evonorms_jax.models.convolution import Conv, make_divisible
from evonorms_jax.models.patches import TokenMlp, blocks_and_norm, patches


class MixerBlock(nn.Module):
    """x + MLP over tokens(norm(x)), then x + MLP over channels(norm(x)).

    Tolstikhin et al. 2021 (arXiv 2105.01601). The MLP over tokens has GELU in any case, since its channels
    are tokens.
    """

    norm_act: NormActConstructor
    token_hidden: int  # numbers inside the MLP over tokens, for each channel
    channel_hidden: int  # numbers inside the MLP over channels, for each token
    mlp_norm_act: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps tokens `[B, T, C]` to the same shape."""
        norm = functools.partial(self.norm_act.norm, use_running_average=not train, dtype=self.dtype)
        over_tokens = TokenMlp(self.norm_act, self.token_hidden, dtype=self.dtype, name="token_mlp")
        over_channels = TokenMlp(
            self.norm_act, self.channel_hidden, self.mlp_norm_act, self.dtype, name="channel_mlp"
        )
        x = x + over_tokens(norm(name="norm_1")(x).swapaxes(1, 2), train=train).swapaxes(1, 2)
        return x + over_channels(norm(name="norm_2")(x), train=train)


class ConvNextBlock(nn.Module):
    """x + MLP(norm(depthwise(x))), without the layer scale of the publication.

    Liu et al. 2022 (arXiv 2201.03545).
    """

    norm_act: NormActConstructor
    hidden: int  # channels inside the MLP
    kernel: int  # of the depthwise convolution
    mlp_norm_act: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[B, h, w, C]` to the same shape."""
        channels = x.shape[-1]
        depthwise = Conv(
            channels,
            self.kernel,
            feature_group_count=channels,
            use_bias=True,
            dtype=self.dtype,
            name="depthwise",
        )
        norm = self.norm_act.norm(use_running_average=not train, dtype=self.dtype, name="norm")
        mlp = TokenMlp(self.norm_act, self.hidden, self.mlp_norm_act, self.dtype, name="mlp")
        return x + mlp(norm(depthwise(x)), train=train)


class MlpMixer(nn.Module):
    """Patches, Mixer blocks, a norm, and a classifier of the mean token. It takes images of one size only."""

    norm_act: NormActConstructor
    num_classes: int = 1000
    features: int = 512  # C
    depth: int = 8  # number of blocks
    patch: int = 16  # side in pixels
    grid: int = 14  # patches along a side of the image
    token_hidden: int = 256
    channel_hidden: int = 2048
    width: float = 1.0  # multiplier of C and of the channels inside the MLPs, rounded by `make_divisible`
    mlp_norm_act: bool = False  # whether the injected layer replaces GELU inside the MLPs over channels
    scan_blocks: bool = False  # `scan` of `run_stage`
    dtype: Any = jnp.float32  # compute dtype; the logits are float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images `[B, H, W, channels]` to logits `[B, num_classes]`; `ValueError` for another size."""
        side = self.grid * self.patch
        if x.shape[1:3] != (side, side):
            raise UserError(
                f"this Mixer takes images of {side}x{side} in training and evaluation alike, got "
                f"{x.shape[1]}x{x.shape[2]}: set data.image_size and data.crop to {side}, or its grid"
            )
        wide = functools.partial(_widened, self.width)
        x = patches(wide(self.features), self.patch, self.dtype)(x)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        block = functools.partial(
            MixerBlock,
            token_hidden=wide(self.token_hidden),
            channel_hidden=wide(self.channel_hidden),
        )
        x = blocks_and_norm(self, block, x, train)
        return Classifier(self.num_classes, name="classifier")(x, train=train)


class ConvNext(nn.Module):
    """Patches, ConvNeXt blocks at one resolution, a norm, and a classifier of the mean.

    It is the isotropic form, table 4 of the publication, which has the shapes of a ViT.
    """

    norm_act: NormActConstructor
    num_classes: int = 1000
    features: int = 384  # C
    depth: int = 18  # number of blocks
    patch: int = 16  # side in pixels
    kernel: int = 7  # of the depthwise convolutions
    mlp_ratio: int = 4  # channels inside the MLP for each channel
    width: float = 1.0  # multiplier of C, which is rounded by `make_divisible`
    mlp_norm_act: bool = False  # whether the injected layer replaces GELU inside the MLPs
    scan_blocks: bool = False  # `scan` of `run_stage`
    dtype: Any = jnp.float32  # compute dtype; the logits are float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images `[B, H, W, channels]` to logits `[B, num_classes]`."""
        features = _widened(self.width, self.features)
        x = patches(features, self.patch, self.dtype)(x)
        block = functools.partial(ConvNextBlock, hidden=self.mlp_ratio * features, kernel=self.kernel)
        x = blocks_and_norm(self, block, x, train)
        return Classifier(self.num_classes, name="classifier")(x, train=train)


def _widened(width: float, channels: int) -> int:
    return make_divisible(channels * width)
