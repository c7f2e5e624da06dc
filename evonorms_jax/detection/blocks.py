"""Post-activation residual blocks ("v1"): the ReLU follows the sum. No convolution has a bias.

Shapes: x `[B, H, W, C]`, f the width of a block. N is a pair and A a linear site, see `sites.py`.
Source: He et al. 2015 (arXiv 1512.03385), figure 5, with the stride on the 3x3 convolution.
"""

import jax
from flax import linen as nn

from evonorms_jax.detection.sites import Sites
from evonorms_jax.models.convolution import Conv
from evonorms_jax.models.resnet import EXPANSION

#: The kernels of a backbone: TensorFlow's default variance scaling, as in the released detection code.
KERNEL_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


class Bottleneck(nn.Module):
    """1x1 f, N, 3x3 f, N, 1x1 4f, A, plus the shortcut, ReLU. The output has 4f channels."""

    sites: Sites
    width: int  # f
    stride: int = 1  # of the 3x3 convolution and of the shortcut

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, 4f]`."""
        y = self.sites.pair("norm_1")(_conv(self.sites, self.width, 1, 1, "conv_1")(x))
        y = self.sites.pair("norm_2")(_conv(self.sites, self.width, 3, self.stride, "conv_2")(y))
        y = self.sites.linear("norm_3")(_conv(self.sites, EXPANSION * self.width, 1, 1, "conv_3")(y))
        return nn.relu(y + _shortcut(self.sites, x, y, self.stride))


class Residual(nn.Module):
    """3x3 f, N, 3x3 f, A, plus the shortcut, ReLU. The output has f channels."""

    sites: Sites
    width: int  # f
    stride: int = 1  # of the first convolution and of the shortcut

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, f]`."""
        y = self.sites.pair("norm_1")(_conv(self.sites, self.width, 3, self.stride, "conv_1")(x))
        y = self.sites.linear("norm_2")(_conv(self.sites, self.width, 3, 1, "conv_2")(y))
        return nn.relu(y + _shortcut(self.sites, x, y, self.stride))


def _conv(sites, features, kernel, stride, name):
    return Conv(features, kernel, stride, dtype=sites.dtype, kernel_init=KERNEL_INIT, name=name)


def _shortcut(sites, x, y, stride):
    """The identity, or where the shape changes a 1x1 projection and A."""
    if stride == 1 and x.shape[-1] == y.shape[-1]:
        return x
    projected = _conv(sites, y.shape[-1], 1, stride, "shortcut")(x)
    return sites.linear("norm_shortcut")(projected)
