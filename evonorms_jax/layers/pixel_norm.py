"""Pixel normalization as pure functions; `baselines` and `nnx` make modules of it.

Shapes: x `[B, *S, C]` with one spatial axis or more, scale and bias `[C]` or `[B, C]`.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from evonorms_jax.search_space import NormAct
from evonorms_jax.search_space.moments import keep_only_moments, masked_input
from evonorms_jax.search_space.norm_act import affine, check_input

#: The guard of the root in the publication.
EPSILON = 1e-8


def pixel_norm(activation: Callable[[Any], Any] | None, epsilon: float = EPSILON) -> NormAct:
    """`activation(x / sqrt(mean_c(x^2) + epsilon) * scale + bias)`, a `NormAct` without state.

    The mean is over the channels of one position. Source: arXiv 1710.10196, section 4.2, without scale and
    bias.

    Args:
      activation: function of the output, or None.
      epsilon: guard of the root.
    """

    def apply(params, stats, x, *, train, mask=None, scale=None, bias=None, dtype=None):
        del params, train
        check_input(x)

        def forward(x, mask, scale, bias):
            result = dtype or x.dtype
            x, mask = masked_input(x, mask)
            x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            mean_square = jnp.mean(jnp.square(x), -1, keepdims=True)
            y = affine(x, scale, bias, factor=1 / jnp.sqrt(mean_square + epsilon))
            return affine(y if activation is None else activation(y), mask=mask).astype(result)

        return keep_only_moments(forward)(x, mask, scale, bias), stats

    return NormAct(lambda channels, dtype=None: ({}, {}), apply)
