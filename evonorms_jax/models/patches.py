"""The parts that all token networks share: patches, positions, blocks, the MLP of a token. Beyond the paper.

A token is a patch of the image. The sites of the injected layer are these:

- Before attention, a mixing of tokens or an MLP, and before the classifier, there is a norm without an
  activation: `norm_act.norm`.
- Inside an MLP there is an activation without a norm. It is GELU. With `mlp_norm_act` the injected layer with
  its nonlinearity replaces it.

Shapes: B batch, H x W pixels, P side of a patch, h = ceil(H / P) and w = ceil(W / P), C channels.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.layers.pointwise import gelu
from evonorms_jax.models.classifier import NormActConstructor
from evonorms_jax.models.convolution import Conv
from evonorms_jax.models.stages import run_stage

#: Deviation of learned positions at the start, as in the released ViT code.
POSITION_DEVIATION = 0.02


def patches(features: int, patch: int, dtype: Any) -> Conv:
    """The linear map of each patch to a token, a map `[B, H, W, channels]` to `[B, h, w, features]`.

    An image whose side is no multiple of the patch is padded with zeros.
    """
    init = nn.initializers.lecun_normal()
    return Conv(features, patch, patch, use_bias=True, dtype=dtype, kernel_init=init, name="patches")


def sine_cosine(height: int, width: int, features: int) -> jax.Array:
    """Fixed positions of a grid, float32 `[height * width, features]`.

    A quarter of the features each: sin and cos of x f_k, sin and cos of y f_k, with the frequencies f_k from
    1 to 1e-4. Source: arXiv 2104.02057 (MoCo v3), and "Better plain ViT baselines", arXiv 2205.01580.
    """
    y, x = jnp.mgrid[:height, :width].astype(jnp.float32)
    frequencies = 1e-4 ** jnp.linspace(0, 1, features // 4, dtype=jnp.float32)
    x, y = (places.reshape(-1, 1) * frequencies[None] for places in (x, y))
    return jnp.concatenate([jnp.sin(x), jnp.cos(x), jnp.sin(y), jnp.cos(y)], axis=1)


class TokenMlp(nn.Module):
    """Dense, GELU or the injected layer, dense, for every token by itself."""

    norm_act: NormActConstructor
    hidden: int  # channels between the two
    mlp_norm_act: bool = False  # whether the injected layer replaces GELU
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[B, spatial..., C]` to the same shape."""
        dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
        y = dense(self.hidden, name="dense_1")(x)
        if self.mlp_norm_act:
            y = self.norm_act(use_running_average=not train, dtype=self.dtype, name="norm_hidden")(y)
        else:
            y = gelu(y)
        return dense(x.shape[-1], name="dense_2")(y)


def blocks_and_norm(network: Any, block: Callable[..., nn.Module], x: jax.Array, train: bool) -> jax.Array:
    """The blocks of a token network and the norm after them, inside its compact method.

    Args:
      network: module with the fields `norm_act`, `depth`, `mlp_norm_act`, `scan_blocks` and `dtype`.
      block: constructor of a block, with the fields that only this network has.
      x: tokens or their map, `[B, spatial..., C]`.
      train: mode of the layers.
    """
    blocks = [
        block(network.norm_act, mlp_norm_act=network.mlp_norm_act, dtype=network.dtype, name=f"block_{i + 1}")
        for i in range(network.depth)
    ]
    x = run_stage(blocks, x, train=train, scan=network.scan_blocks)
    return network.norm_act.norm(use_running_average=not train, dtype=network.dtype, name="norm_final")(x)
