"""Layers without statistics as pure functions: DyT, Derf, and an activation alone.

Each is a function of one number at a time, so a mask only sets the output to 0.
Shapes: x `[B, *S, C]` with one spatial axis or more, scale and bias `[C]` or `[B, C]`, alpha and shift `[1]`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from evonorms_jax.search_space import NormAct
from evonorms_jax.search_space.moments import keep_only_moments, masked_input
from evonorms_jax.search_space.norm_act import affine, check_input, per_channel

#: Start values of the scalars, those of the publications.
ALPHA, SHIFT = 0.5, 0.0


def gelu(x: jax.Array) -> jax.Array:
    """`x Phi(x)` by the error function, as in ViT. `jax.nn.gelu` is its approximation by tanh."""
    return jax.nn.gelu(x, approximate=False)


def dynamic_tanh() -> NormAct:
    """`tanh(alpha * x) * scale + bias` with a trainable scalar alpha, which starts at 0.5.

    Source: arXiv 2503.10622, "Transformers without Normalization", section 4.
    """
    return _scaled({"alpha": ALPHA}, lambda x, alpha: jnp.tanh(alpha * x))


def dynamic_erf() -> NormAct:
    """`erf(alpha * x + shift) * scale + bias` with trainable scalars, which start at 0.5 and 0.

    Source: arXiv 2512.10938.
    """
    return _scaled({"alpha": ALPHA, "shift": SHIFT}, lambda x, alpha, shift: jax.lax.erf(alpha * x + shift))


def activation_alone(activation: Callable[[Any], Any] | None) -> NormAct:
    """`activation(x * scale + bias)`: the place of a norm, without one."""

    def function(x, scale, bias):
        y = affine(x, scale, bias)
        return y if activation is None else activation(y)

    return _pointwise({}, function)


def _scaled(starts: Mapping[str, float], function: Callable[..., jax.Array]) -> NormAct:
    """`function(x, *scalars) * scale + bias`."""
    return _pointwise(starts, lambda x, scale, bias, *scalars: affine(function(x, *scalars), scale, bias))


def _pointwise(starts: Mapping[str, float], function: Callable[..., jax.Array]) -> NormAct:
    """`function(x, scale, bias, *scalars)` in float32 or wider. `starts` names the scalars."""

    def init(channels, dtype=jnp.float32):
        del channels
        return {name: jnp.full((1,), start, dtype) for name, start in starts.items()}, {}

    def apply(params, stats, x, *, train, mask=None, scale=None, bias=None, dtype=None):
        del train
        check_input(x)

        def forward(params, x, mask, scale, bias):
            result = dtype or x.dtype
            x, mask = masked_input(x, mask)
            x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            scalars = [per_channel(params[name], x) for name in starts]
            return affine(function(x, scale, bias, *scalars), mask=mask).astype(result)

        # There are no moments to keep. But the backward pass keeps x in its own dtype, not in float32.
        return keep_only_moments(forward)(params, x, mask, scale, bias), stats

    return NormAct(init, apply)
