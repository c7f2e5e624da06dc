"""Orthogonal initial weights, with a short program for TPUs.

XLA:TPU unrolls a QR decomposition over blocks of columns, once for each shape of a kernel. The initial
weights of BigGAN at 128x128 took 1,036 s of CPU time to compile, and take 121 s with a loop over the columns.
The loop gives the same weights up to rounding, since a decomposition with a positive diagonal of R is unique.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer

from evonorms_jax.search_space import target


def orthogonal(scale: float = 1.0) -> Initializer:
    """Uniformly distributed matrices `[M, O]` with orthonormal columns, or rows if `M < O`, times a scale.

    A shape `[..., O]` is seen as `[M, O]`. Source: Saxe et al. 2013 (arXiv 1312.6120), section 3.
    """
    decomposed = nn.initializers.orthogonal(scale)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        if target.platform() != "tpu":
            return decomposed(key, shape, dtype)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        drawn = jax.random.normal(key, (max(rows, columns), min(rows, columns)), dtype)
        found = orthonormalize(drawn.T)
        return scale * (found if rows < columns else found.T).reshape(shape)

    return init


def orthonormalize(rows: jax.Array) -> jax.Array:
    """The Gram-Schmidt process on linearly independent rows, `[N, M]` with `N <= M`.

    Each row is freed from the earlier ones twice, which keeps the result orthogonal to the last digits.
    Source: Giraud, Langou and Rozloznik 2005, The loss of orthogonality in the Gram-Schmidt
    orthogonalization process.
    """

    def add(number, found):
        row = rows[number]
        for _ in range(2):  # rows to come are zeros here and take no part
            shares = jnp.dot(found, row, precision=jax.lax.Precision.HIGHEST)
            row = row - jnp.dot(shares, found, precision=jax.lax.Precision.HIGHEST)
        return found.at[number].set(row / jnp.linalg.norm(row))

    with target.counted_loop(len(rows)):
        return jax.lax.fori_loop(0, len(rows), add, jnp.zeros_like(rows))
