"""The block and the network that MobileNetV2, MnasNet, EfficientNet and RegNetZ share, NHWC.

N is the injected `norm_act`. The families differ in their tables of stages, in squeeze-excite and in their
scaling: see `mobile_networks.py` and `regnetz.py`.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.errors import UserError
from evonorms_jax.models.classifier import Classifier, NormActConstructor
from evonorms_jax.models.convolution import Conv, make_divisible
from evonorms_jax.models.stages import run_stage


class InvertedStage(NamedTuple):
    """Inverted bottlenecks of the same output width. The first of them has the stride."""

    features: int  # channels out of each block
    blocks: int
    stride: int
    expansion: int  # channels of the depthwise convolution for each channel into the block
    kernel: int  # kernel size of the depthwise convolution
    squeeze: float = 0.0  # squeeze-excite ratio to the channels into the block; 0 leaves it out


class SqueezeExcite(nn.Module):
    """x * sigmoid(W2 act(W1 mean_hw(x))): gates each channel by all channels' means.

    Hu et al. 2018 (arXiv 1709.01507). The activation and the sigmoid of the gate are part of the model, not
    of the injected layer.
    """

    features: int  # channels of the inner layer
    activation: Callable  # act
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to the same shape."""
        conv = functools.partial(Conv, kernel_size=1, use_bias=True, dtype=self.dtype)
        gate = jnp.mean(x, axis=(1, 2), keepdims=True)
        gate = self.activation(conv(self.features, name="reduce")(gate))
        return x * nn.sigmoid(conv(x.shape[-1], name="expand")(gate))


class InvertedBottleneck(nn.Module):
    """1x1, N, depthwise, N, squeeze-excite, 1x1, affine, and the identity around it where shapes agree.

    With `expansion=1` the first 1x1 and its N are left out. Sandler et al. 2018 (arXiv 1801.04381). The
    fields from `features` to `squeeze` are those of an `InvertedStage`. `drop_rate` is the probability that
    training drops the branch of an example, in blocks with an identity (drop-connect, arXiv 1603.09382). A
    rate above 0 needs the rng "dropout". With a `group_size` above 1 the depthwise convolution becomes one
    over groups of so many channels.
    """

    norm_act: NormActConstructor
    features: int
    stride: int
    expansion: int
    kernel: int
    squeeze: float = 0.0
    squeeze_activation: Callable = nn.silu
    drop_rate: float = 0.0
    group_size: int = 1
    symmetric: bool = False  # padding of the convolutions, see `convolve`
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, ceil(H / stride), ceil(W / stride), features]`."""
        site = {"use_running_average": not train, "dtype": self.dtype}
        inputs = x.shape[-1]
        expanded = inputs * self.expansion
        y = x
        if self.expansion != 1:
            y = Conv(expanded, 1, dtype=self.dtype, name="expand")(y)
            y = self.norm_act(**site, name="norm_expand")(y)
        y = Conv(
            expanded,
            self.kernel,
            self.stride,
            expanded // self.group_size,
            dtype=self.dtype,
            symmetric=self.symmetric,
            name="depthwise",
        )(y)
        y = self.norm_act(**site, name="norm_depthwise")(y)
        if self.squeeze:
            inner = max(1, int(inputs * self.squeeze))
            y = SqueezeExcite(inner, self.squeeze_activation, self.dtype, name="squeeze_excite")(y)
        y = Conv(self.features, 1, dtype=self.dtype, name="project")(y)
        y = self.norm_act.affine(**site, name="affine_project")(y)
        if self.stride != 1 or inputs != self.features:
            return y
        drop = nn.Dropout(self.drop_rate, broadcast_dims=(1, 2, 3))
        return x + drop(y, deterministic=not train)


class InvertedBottleneckNet(nn.Module):
    """3x3 stem, N, stages of `InvertedBottleneck`, 1x1 head, N, classifier.

    Block i of n, from i = 0 on, has the drop rate `drop_connect_rate * i / n`. Training with one of the two
    rates above 0 needs the rng "dropout".
    """

    norm_act: NormActConstructor
    stages: Sequence[InvertedStage]  # or tuples of their fields
    num_classes: int = 1000
    width: float = 1.0  # multiplier of all channel counts, which are rounded by `make_divisible`
    depth: float = 1.0  # multiplier of the number of blocks in a stage, rounded up
    stem_features: int = 32
    stem_stride: int = 2
    head_features: int = 1280
    shrink_head: bool = False  # whether a width below 1 narrows the head too
    squeeze_activation: Callable = nn.silu  # inside squeeze-excite
    dropout_rate: float = 0.0  # share of features dropped before the dense layer in training
    drop_connect_rate: float = 0.0
    scan_blocks: bool = False  # `scan` of `run_stage`; a loop has no drop-connect
    group_size: int = 1  # of `InvertedBottleneck`
    # Whether three 3x3 convolutions, each with its N, are the stem. The first and the last have the stride.
    deep_stem: bool = False
    symmetric: bool = False  # padding of the convolutions, see `convolve`
    dtype: Any = jnp.float32  # compute dtype; the logits are float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps images `[B, H, W, C]` to logits `[B, num_classes]`."""
        site = {"use_running_average": not train, "dtype": self.dtype}
        stem = functools.partial(
            Conv,
            make_divisible(self.stem_features * self.width),
            3,
            dtype=self.dtype,
            symmetric=self.symmetric,
        )
        strides = {"": self.stem_stride}
        if self.deep_stem:
            strides |= {"_2": 1, "_3": self.stem_stride}
        for suffix, stride in strides.items():
            x = stem(stride, name=f"stem{suffix}")(x)
            x = self.norm_act(**site, name=f"norm_stem{suffix}")(x)
        if self.scan_blocks and self.drop_connect_rate:
            raise UserError(f"scan_blocks needs drop_connect_rate 0, got {self.drop_connect_rate}")
        for _, blocks in itertools.groupby(self._blocks(), lambda block: block.name.split("_")[1]):
            x = run_stage(list(blocks), x, train=train, scan=self.scan_blocks)
        head_width = self.width if self.shrink_head else max(1.0, self.width)
        head_features = make_divisible(self.head_features * head_width)
        x = Conv(head_features, 1, dtype=self.dtype, name="head")(x)
        x = self.norm_act(**site, name="norm_head")(x)
        return Classifier(self.num_classes, self.dropout_rate, name="classifier")(x, train=train)

    def _blocks(self) -> Iterator[InvertedBottleneck]:
        """The blocks in order, with their share of the drop-connect rate."""
        stages = [InvertedStage(*stage) for stage in self.stages]
        repeats = [math.ceil(stage.blocks * self.depth) for stage in stages]
        places = [(i, j) for i, repeat in enumerate(repeats) for j in range(repeat)]
        for index, (i, j) in enumerate(places):
            stage = stages[i]
            yield InvertedBottleneck(
                self.norm_act,
                features=make_divisible(stage.features * self.width),
                stride=stage.stride if j == 0 else 1,
                expansion=stage.expansion,
                kernel=stage.kernel,
                squeeze=stage.squeeze,
                squeeze_activation=self.squeeze_activation,
                drop_rate=self.drop_connect_rate * index / len(places),
                group_size=self.group_size,
                symmetric=self.symmetric,
                dtype=self.dtype,
                name=f"stage_{i + 1}_block_{j + 1}",
            )
