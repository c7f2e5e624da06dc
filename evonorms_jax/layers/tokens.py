"""Layers of token models as Flax Linen modules, and activations without a norm. All are beyond the paper.

They have the fields, call and shapes of `layers.linen`. A token model calls them on `[B, T, C]`.
"""

import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.layers import channel_norm, pointwise
from evonorms_jax.layers.baselines import _WithActivation
from evonorms_jax.layers.linen import Initializer, _GraphLayer
from evonorms_jax.search_space import NormAct
from evonorms_jax.search_space.norm_act import AFFINE


def alpha_start(key, shape, dtype=jnp.float32):
    """Initializer of alpha: 0.5. A function of the module, which a layer can be pickled with."""
    del key
    return jnp.full(shape, pointwise.ALPHA, dtype)


class DynamicTanh(_GraphLayer, kw_only=True):
    """DyT: `tanh(alpha * x) * scale + bias`; no statistics. The parameter `alpha` is a scalar, `[1]`.

    The graph `dyt` of the search space has a number for each channel, v1, in its place.
    Source: arXiv 2503.10622.

    Attributes:
      alpha_init: initializer of `alpha`, 0.5 by default.
    """

    alpha_init: Initializer = alpha_start

    def _functions(self) -> NormAct:
        return pointwise.dynamic_tanh() if self.nonlinearity else AFFINE


class DynamicErf(_GraphLayer, kw_only=True):
    """Derf: `erf(alpha * x + shift) * scale + bias`; no statistics. `alpha` and `shift` are scalars, `[1]`.

    The graph `derf` of the search space has a number for each channel, v1 and v0, in their places.
    Source: arXiv 2512.10938.

    Attributes:
      alpha_init: initializer of `alpha`, 0.5 by default.
      shift_init: initializer of `shift`, zeros by default.
    """

    alpha_init: Initializer = alpha_start
    shift_init: Initializer = nn.initializers.zeros

    def _functions(self) -> NormAct:
        return pointwise.dynamic_erf() if self.nonlinearity else AFFINE


class RMSNormAct(_WithActivation, kw_only=True):
    """`activation(x / sqrt(mean_c(x^2) + epsilon) * scale)`, the mean over the channels of each position.

    Source: arXiv 1910.07467, without a bias. `use_bias=True` adds one before the activation.

    Attributes:
      epsilon: guard of the root.
      use_bias: whether `bias` is added to the output.
    """

    epsilon: float = 1e-6
    use_bias: bool = False

    def _functions(self) -> NormAct:
        return channel_norm.channel_norm(self._chosen, self.epsilon)


class ChannelNormAct(_WithActivation, kw_only=True):
    """LayerNorm over the channels of each position, then an activation, as in ViT and ConvNeXt.

    `activation((x - mean_c(x)) / sqrt(var_c(x) + epsilon) * scale + bias)`. `LayerNormAct` is over space as
    well. Source: arXiv 1607.06450.
    """

    def _functions(self) -> NormAct:
        return channel_norm.channel_norm(self._chosen, self.epsilon, centered=True)


class NoNormAct(_WithActivation, kw_only=True):
    """`activation(x * scale + bias)`: an activation without a norm."""

    def _functions(self) -> NormAct:
        return pointwise.activation_alone(self._chosen)
