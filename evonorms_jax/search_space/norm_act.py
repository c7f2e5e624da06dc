"""The contract of every layer, and its affine form: the layer without its nonlinearity.

Shapes: x `[B, *S, C]` with one spatial axis or more, parameters and statistics `[C]`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evonorms_jax.errors import UserError
from evonorms_jax.search_space.moments import keep_only_moments, masked_input

Params = dict[str, jax.Array]
Stats = dict[str, jax.Array]


class NormAct(NamedTuple):
    """A normalization-activation layer as two pure functions.

    Attributes:
      init: `(channels, dtype=float32) -> (params, stats)`, both dicts of `[C]` arrays.
      apply: `(params, stats, x, *, train, mask=None, scale=None, bias=None, dtype=None) -> (y, stats)`, y
        with the shape of x and, unless given, its dtype. With `train` the batch's own moments are used and
        stats advance. Otherwise stats are used unchanged. `scale` and `bias`, `[C]`, are the affine map after
        the layer, y * scale + bias, which costs no pass of its own here. Of a class-conditional layer they
        are `[B, C]`.
    """

    init: Callable[..., tuple[Params, Stats]]
    apply: Callable[..., tuple[jax.Array, Stats]]


def affine(x: jax.Array, scale=None, bias=None, mask=None, factor=None) -> jax.Array:
    """`x * (factor * scale) + bias` in float32 or wider, and 0 where the mask `[B, *S, 1]` is False.

    Every candidate ends with it, and it is the whole of a candidate without its nonlinearity. `factor` is
    constant over space, as the last step of a normalization. Joined to gamma it costs each element a single
    product and, for the gradients of both, one sum over space.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if scale is not None:
        scale = per_channel(scale, x)
        factor = scale if factor is None else factor * scale
    if factor is not None:
        x = x * factor
    if bias is not None:
        x = x + per_channel(bias, x)
    return x if mask is None else jnp.where(mask, x, 0)


def per_channel(vector: jax.Array, x: jax.Array) -> jax.Array:
    """The vector `[C]`, `[1]` or, one for each example, `[B, C]` in the dtype and rank of x, to broadcast."""
    return jnp.expand_dims(vector.astype(x.dtype), tuple(range(vector.ndim - 1, x.ndim - 1)))


def check_input(x: jax.Array) -> None:
    """Raises ValueError unless x is floating point `[B, *S, C]` of rank 3 or more."""
    if x.ndim < 3:
        raise UserError(f"x must be [B, spatial..., C] with rank 3 or more, got shape {x.shape}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise UserError(f"x must be floating point, got dtype {x.dtype}")


def _apply(params, stats, x, *, train, mask=None, scale=None, bias=None, dtype=None):
    del params, train
    check_input(x)

    def forward(x, mask, scale, bias):
        x, mask = masked_input(x, mask)
        return affine(x, scale, bias, mask).astype(dtype or x.dtype)

    # There are no moments to keep. But the backward pass keeps x in its own dtype, not in float32.
    return keep_only_moments(forward)(x, mask, scale, bias), stats


#: `x * scale + bias` as a `NormAct`: no parameters of its own, no statistics, no division.
AFFINE = NormAct(lambda channels, dtype=None: ({}, {}), _apply)
