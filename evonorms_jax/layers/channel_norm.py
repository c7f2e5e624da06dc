"""Norms over the channels of one position as pure functions; `baselines`, `tokens` and `nnx` make modules.

Shapes: x `[B, *S, C]` with one spatial axis or more, scale and bias `[C]` or `[B, C]`.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from evonorms_jax.search_space import NormAct
from evonorms_jax.search_space.moments import POSITION, Moments, keep_only_moments, masked_input
from evonorms_jax.search_space.norm_act import affine, check_input

#: The guard of the root in the publication of PixelNorm.
PIXEL_EPSILON = 1e-8


def channel_norm(
    activation: Callable[[Any], Any] | None, epsilon: float, *, centered: bool = False
) -> NormAct:
    """`activation((x - m) / sqrt(mean_c((x - m)^2) + epsilon) * scale + bias)`, a `NormAct` without state.

    Both means are over the channels of one position. m is `mean_c(x)` in LayerNorm over channels, and 0 in
    RMSNorm (arXiv 1910.07467) and in PixelNorm (arXiv 1710.10196, section 4.2), which has no scale and bias
    in the publication.

    Args:
      activation: function of the output, or None.
      epsilon: guard of the root.
      centered: whether the mean is subtracted.
    """

    def apply(params, stats, x, *, train, mask=None, scale=None, bias=None, dtype=None):
        del params, train
        check_input(x)

        def forward(x, mask, scale, bias):
            result = dtype or x.dtype
            coarse = x.dtype == jnp.bfloat16
            x, mask = masked_input(x, mask)
            x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            moments = Moments(x, coarse=coarse)
            if centered:
                x, squares = x - moments.mean(POSITION), moments.variance(POSITION)
            else:
                squares = moments.mean_square(POSITION)
            y = affine(x, scale, bias, factor=1 / jnp.sqrt(squares + epsilon))
            return affine(y if activation is None else activation(y), mask=mask).astype(result)

        return keep_only_moments(forward)(x, mask, scale, bias), stats

    return NormAct(lambda channels, dtype=None: ({}, {}), apply)
