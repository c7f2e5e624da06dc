"""A normalization-activation layer whose scale and bias follow from a condition, such as the class.

B batch, C channels, Z size of the condition.
"""

from typing import Any

import jax
from flax import linen as nn

from evonorms_jax.gan.spectral import SpectralDense
from evonorms_jax.models.classifier import NormActConstructor


class ConditionalNormAct(nn.Module):
    """Any layer with the scale `1 + Wg c` and the bias `Wb c` of a condition c in place of its parameters.

    They act where the layer has its own scale and bias: before the activation of BatchNorm, GroupNorm,
    LayerNorm and PixelNorm, after the core of an EvoNorm and of any graph, and before the threshold of filter
    response normalization. Further parameters, such as v, do not depend on the condition. Both matrices are
    spectrally normalized and have no bias. Source: Brock et al. 2019 (arXiv 1809.11096), appendix B.
    """

    norm_act: NormActConstructor
    use_running_average: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        """Maps x `[B, H, W, C]` and the condition `[B, Z]` to the shape of x."""
        channels = x.shape[-1]
        scale = 1 + SpectralDense(channels, use_bias=False, name="scale")(condition)
        bias = SpectralDense(channels, use_bias=False, name="bias")(condition)
        layer = self.norm_act(use_running_average=self.use_running_average, dtype=self.dtype, name="layer")
        return layer(x, modulation=(scale, bias))
