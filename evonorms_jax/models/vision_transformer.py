"""Vision transformers (ViT) with pre-norm blocks. Beyond the paper.

Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words" (arXiv 2010.11929). The sites of the injected layer
are those of `patches.py`: 2 in a block and 1 at the end.

Trainable parameters at 1000 classes and 224x224, with a scale and a bias for each channel of a norm: ViT-S/16
22,050,664 and ViT-B/16 86,567,656, as published for DeiT-S and DeiT-B (arXiv 2012.12877).

Shapes: B batch, T tokens, C channels, N heads, D = C / N.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.models.classifier import Classifier, NormActConstructor
from evonorms_jax.models.convolution import make_divisible
from evonorms_jax.models.patches import POSITION_DEVIATION, TokenMlp, blocks_and_norm, patches, sine_cosine

#: Channels inside the MLP for each channel of a token.
MLP_RATIO = 4


class Attention(nn.Module):
    """softmax(q k^T / sqrt(D)) v of each head, and a linear map of all heads."""

    heads: int  # N
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens `[B, T, C]` to the same shape."""
        batch, tokens, channels = x.shape
        # For square matrices this is Xavier's uniform distribution, also where three of them are one kernel.
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.lecun_uniform())
        y = dense(3 * channels, name="query_key_value")(x)
        parts = y.reshape(batch, tokens, 3, self.heads, channels // self.heads)
        y = jax.nn.dot_product_attention(parts[:, :, 0], parts[:, :, 1], parts[:, :, 2])
        return dense(channels, name="project")(y.reshape(x.shape))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x))."""

    norm_act: NormActConstructor
    heads: int
    mlp_norm_act: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps tokens `[B, T, C]` to the same shape."""
        norm = functools.partial(self.norm_act.norm, use_running_average=not train, dtype=self.dtype)
        mlp = TokenMlp(self.norm_act, MLP_RATIO * x.shape[-1], self.mlp_norm_act, self.dtype, name="mlp")
        x = x + Attention(self.heads, self.dtype, name="attention")(norm(name="norm_1")(x))
        return x + mlp(norm(name="norm_2")(x), train=train)


class VisionTransformer(nn.Module):
    """Patches with positions, blocks, a norm, and a classifier of the class token or of the mean token."""

    norm_act: NormActConstructor
    num_classes: int = 1000
    features: int = 384  # C
    depth: int = 12  # number of blocks
    heads: int = 6
    patch: int = 16  # side in pixels
    # Side of the grid of learned positions, which are interpolated where an image has another grid. None
    # gives fixed sine-cosine positions.
    grid: int | None = 14
    class_token: bool = True  # whether a token of its own is classified, instead of the mean over all
    width: float = 1.0  # multiplier of C, which is rounded by `make_divisible`
    mlp_norm_act: bool = False  # whether the injected layer replaces GELU inside the MLPs
    scan_blocks: bool = False  # `scan` of `run_stage`
    dtype: Any = jnp.float32  # compute dtype; the logits are float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images `[B, H, W, channels]` to logits `[B, num_classes]`."""
        features = make_divisible(self.features * self.width, 4 * self.heads)
        x = self._tokens(patches(features, self.patch, self.dtype)(x))
        # The last norm sees all tokens, since a layer may have statistics over them.
        x = blocks_and_norm(self, functools.partial(TransformerBlock, heads=self.heads), x, train)
        x = x[:, :1] if self.class_token else x
        return Classifier(self.num_classes, name="classifier")(x, train=train)

    def _tokens(self, x: jax.Array) -> jax.Array:
        """The tokens `[B, T, C]` of a map `[B, h, w, C]`, with their positions."""
        batch, height, width, features = x.shape
        extra = int(self.class_token)
        x = x.reshape(batch, -1, features)
        if self.class_token:
            token = self.param("class_token", nn.initializers.zeros, (1, 1, features))
            x = jnp.concatenate([jnp.broadcast_to(token.astype(x.dtype), (batch, 1, features)), x], axis=1)
        if self.grid is None:
            positions = jnp.pad(sine_cosine(height, width, features), ((extra, 0), (0, 0)))
        else:
            shape = (extra + self.grid**2, features)
            positions = self.param("positions", nn.initializers.normal(POSITION_DEVIATION), shape)
            positions = _interpolate(positions, extra, self.grid, (height, width))
        return x + positions.astype(x.dtype)[None]


def _interpolate(positions: jax.Array, extra: int, grid: int, sides: tuple[int, int]) -> jax.Array:
    """Positions `[extra + grid^2, C]` for another grid; the first `extra` of them have no place in it."""
    if sides == (grid, grid):
        return positions
    first, placed = positions[:extra], positions[extra:].reshape(grid, grid, -1)
    placed = jax.image.resize(placed, (*sides, placed.shape[-1]), "bilinear")
    return jnp.concatenate([first, placed.reshape(-1, placed.shape[-1])])


ViTSmall16 = functools.partial(VisionTransformer, features=384, heads=6)
ViTBase16 = functools.partial(VisionTransformer, features=768, heads=12)
