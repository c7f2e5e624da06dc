"""Pre-activation ResNets with bottleneck blocks ("v2"), NHWC. N is the injected `norm_act`.

He et al. 2016, "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027), with the stride on
the 3x3 convolution. No convolution has a bias.

Trainable parameters at 1000 classes, with a scale and a bias for each channel of N: ResNet-50 25,549,352
and ResNet-101 44,541,480, as in Big Transfer's R50x1 and R101x1 (arXiv 1912.11370), which have these sites.
ResNet-50 in the post-activation form of torchvision has 25,557,032: the norms of its projection shortcuts
have 2 * (256 + 512 + 1024 + 2048) = 7,680 more, and the other norms have equally many in both forms.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.models.classifier import Classifier, NormActConstructor
from evonorms_jax.models.convolution import Conv, make_divisible, max_pool
from evonorms_jax.models.stages import run_stage

#: Number of output channels of a block for each channel of its 3x3 convolution.
EXPANSION = 4


class ResNetStage(NamedTuple):
    """Blocks of the same width. The first of them has the stride."""

    width: int  # channels of the 3x3 convolution; the output has EXPANSION times as many
    blocks: int
    stride: int


class BottleneckBlock(nn.Module):
    """N, 1x1, N, 3x3, N, 1x1, and the identity around all of it.

    Where the shape changes, a 1x1 projection of the first N's output replaces the identity.
    """

    norm_act: NormActConstructor
    width: int  # channels of the 3x3 convolution
    stride: int = 1  # of the 3x3 convolution and of the projection
    dtype: Any = jnp.float32
    tap: bool = False  # whether to return also the output of the first N, `[B, H, W, C]`
    average_shortcut: bool = False  # whether 2x2 means take the place of the projection's stride
    symmetric: bool = False  # padding of the convolutions, see `convolve`

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Maps `[B, H, W, C]` to `[B, ceil(H / stride), ceil(W / stride), EXPANSION * width]`."""
        norm = functools.partial(self.norm_act, use_running_average=not train, dtype=self.dtype)
        conv = functools.partial(Conv, dtype=self.dtype, symmetric=self.symmetric)
        features = EXPANSION * self.width
        y = first = norm(name="norm_1")(x)
        if self.stride != 1 or x.shape[-1] != features:
            x, stride = (_halved(y), 1) if self.average_shortcut and self.stride == 2 else (y, self.stride)
            x = conv(features, 1, stride=stride, name="shortcut")(x)
        y = conv(self.width, 1, name="conv_1")(y)
        y = norm(name="norm_2")(y)
        y = conv(self.width, 3, stride=self.stride, name="conv_2")(y)
        y = norm(name="norm_3")(y)
        y = conv(features, 1, name="conv_3")(y)
        return (x + y, first) if self.tap else x + y


def _halved(x: jax.Array) -> jax.Array:
    """The means of 2x2 positions. At the end of an odd side fewer positions count."""
    return nn.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False)


class ResNet(nn.Module):
    """Stem convolution (without N), 3x3 max-pool, stages of `BottleneckBlock`, N, classifier.

    With `deep_stem` and `average_shortcut` it is a ResNet-D, He et al. 2019 (arXiv 1812.01187).
    """

    norm_act: NormActConstructor
    stages: Sequence[ResNetStage]  # or tuples of their fields
    num_classes: int = 1000
    width: float = 1.0  # multiplier of all channel counts, which are rounded by `make_divisible`
    stem_features: int = 64
    stem_kernel: int = 7
    stem_stride: int = 2
    stem_pool: bool = True  # whether the max-pool (stride 2) follows the stem
    # Whether three 3x3 convolutions with an N after the first and the second are the stem. The first has the
    # stride, and the first two have half of the channels.
    deep_stem: bool = False
    average_shortcut: bool = False  # of `BottleneckBlock`
    symmetric: bool = False  # padding of convolutions and max-pool, see `convolve`
    scan_blocks: bool = False  # `scan` of `run_stage`
    dtype: Any = jnp.float32  # compute dtype; the logits are float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images `[B, H, W, C]` to logits `[B, num_classes]`."""
        x = self._stem(x, train)
        if self.stem_pool:
            x = max_pool(x, 3, stride=2, symmetric=self.symmetric)
        for i, stage in enumerate(map(ResNetStage._make, self.stages)):
            blocks = [
                BottleneckBlock(
                    self.norm_act,
                    width=make_divisible(stage.width * self.width),
                    stride=stage.stride if j == 0 else 1,
                    dtype=self.dtype,
                    average_shortcut=self.average_shortcut,
                    symmetric=self.symmetric,
                    name=f"stage_{i + 1}_block_{j + 1}",
                )
                for j in range(stage.blocks)
            ]
            x = run_stage(blocks, x, train=train, scan=self.scan_blocks)
        norm = self.norm_act(use_running_average=not train, dtype=self.dtype, name="norm_final")
        return Classifier(self.num_classes, name="classifier")(norm(x), train=train)

    def _stem(self, x: jax.Array, train: bool) -> jax.Array:
        conv = functools.partial(Conv, dtype=self.dtype, symmetric=self.symmetric)
        features = make_divisible(self.stem_features * self.width)
        if not self.deep_stem:
            return conv(features, self.stem_kernel, self.stem_stride, name="stem")(x)
        norm = functools.partial(self.norm_act, use_running_average=not train, dtype=self.dtype)
        half = make_divisible(self.stem_features / 2 * self.width)
        x = norm(name="norm_stem")(conv(half, 3, self.stem_stride, name="stem")(x))
        x = norm(name="norm_stem_2")(conv(half, 3, name="stem_2")(x))
        return conv(features, 3, name="stem_3")(x)


def _imagenet_stages(*blocks):
    widths, strides = (64, 128, 256, 512), (1, 2, 2, 2)
    return tuple(map(ResNetStage, widths, blocks, strides))


ResNet50 = functools.partial(ResNet, stages=_imagenet_stages(3, 4, 6, 3))
#: ResNet-50-D with the padding of PyTorch, the network of timm's `resnetv2_50d` family.
ResNet50D = functools.partial(ResNet50, deep_stem=True, average_shortcut=True, symmetric=True)
ResNet101 = functools.partial(ResNet, stages=_imagenet_stages(3, 4, 23, 3))
