"""The Inception network whose features published FIDs and Inception scores use, in Flax, for inference only.

It is the TensorFlow graph of 2015-12-05 (Szegedy et al. 2015, arXiv 1512.00567), which differs from
torchvision's network in its weights and in four places: the 3x3 average pools leave the padding
out of the mean, the pool of Mixed_7c takes the maximum, there are 1,008 outputs, and no auxiliary head.
Source: pytorch-fid's `inception.py`, whose names the modules have.

Parameters: 94 convolutions without bias, 21,751,136, the scales and biases of their norms, 34,432, and the
classifier, 2,065,392.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

FEATURES, OUTPUTS = 2048, 1008
_EPSILON = 1e-3
# At the default precision a TPU would multiply in bfloat16.
_PRECISION = jax.lax.Precision.HIGHEST


class Unit(nn.Module):
    """Convolution without bias, batch norm with the stored statistics, ReLU."""

    features: int
    kernel: tuple[int, int]  # height and width
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H', W', features]`."""
        strides = (self.stride, self.stride)
        conv = nn.Conv(
            self.features,
            self.kernel,
            strides,
            self.padding,
            use_bias=False,
            precision=_PRECISION,
            name="conv",
        )
        x = conv(x)
        # There is no training mode: FIDs have been published with the statistics of the batch by mistake.
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=_EPSILON, name="bn")(x))


class Spec(NamedTuple):
    """A `Unit` with its name."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


def _chain(x: jax.Array, *specs: Spec) -> jax.Array:
    """Units one after the other, within the module that calls it."""
    for name, *fields in specs:
        x = Unit(*fields, name=name)(x)
    return x


def _halved(name: str, features: int) -> Spec:
    return Spec(name, features, (3, 3), 2, "VALID")


def average_pool(x: jax.Array) -> jax.Array:
    """The mean over 3x3 windows, where the window at an edge has fewer pixels."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def largest_pool(x: jax.Array) -> jax.Array:
    """The maximum over 3x3 windows."""
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def _halving_pool(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), (2, 2))


class MixedFive(nn.Module):
    """Mixed_5b to 5d: 1x1, 5x5, two 3x3, and a pool."""

    pool_features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H, W, 224 + pool_features]`."""
        double = [Spec(f"branch3x3dbl_{i}", 96, (3, 3)) for i in (2, 3)]
        branches = [
            _chain(x, Spec("branch1x1", 64)),
            _chain(x, Spec("branch5x5_1", 48), Spec("branch5x5_2", 64, (5, 5))),
            _chain(x, Spec("branch3x3dbl_1", 64), *double),
            _chain(average_pool(x), Spec("branch_pool", self.pool_features)),
        ]
        return jnp.concatenate(branches, -1)


class MixedSixFirst(nn.Module):
    """Mixed_6a, which halves the map."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, (H - 1) // 2, (W - 1) // 2, 480 + C]`."""
        double = [
            Spec("branch3x3dbl_1", 64),
            Spec("branch3x3dbl_2", 96, (3, 3)),
            _halved("branch3x3dbl_3", 96),
        ]
        branches = [_chain(x, _halved("branch3x3", 384)), _chain(x, *double), _halving_pool(x)]
        return jnp.concatenate(branches, -1)


class MixedSix(nn.Module):
    """Mixed_6b to 6e: 1x1, 7x7 and two 7x7 as products of rows and columns, and a pool."""

    width: int  # channels within the 7x7 branches

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H, W, 768]`."""
        width, row, column = self.width, (1, 7), (7, 1)
        single = [
            Spec("branch7x7_1", width),
            Spec("branch7x7_2", width, row),
            Spec("branch7x7_3", 192, column),
        ]
        kernels = (column, row, column)
        double = [Spec("branch7x7dbl_1", width)]
        double += [Spec(f"branch7x7dbl_{i}", width, kernel) for i, kernel in enumerate(kernels, 2)]
        double += [Spec("branch7x7dbl_5", 192, row)]
        branches = [
            _chain(x, Spec("branch1x1", 192)),
            _chain(x, *single),
            _chain(x, *double),
            _chain(average_pool(x), Spec("branch_pool", 192)),
        ]
        return jnp.concatenate(branches, -1)


class MixedSevenFirst(nn.Module):
    """Mixed_7a, which halves the map."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, (H - 1) // 2, (W - 1) // 2, 512 + C]`."""
        long = [
            Spec("branch7x7x3_1", 192),
            Spec("branch7x7x3_2", 192, (1, 7)),
            Spec("branch7x7x3_3", 192, (7, 1)),
            _halved("branch7x7x3_4", 192),
        ]
        short = [Spec("branch3x3_1", 192), _halved("branch3x3_2", 320)]
        return jnp.concatenate([_chain(x, *short), _chain(x, *long), _halving_pool(x)], -1)


class MixedSeven(nn.Module):
    """Mixed_7b and 7c: 1x1, and branches that end in a row and a column beside each other, and a pool."""

    pool: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, C]` to `[B, H, W, 2048]`."""
        row, column = (1, 3), (3, 1)
        single = _chain(x, Spec("branch3x3_1", 384))
        double = _chain(x, Spec("branch3x3dbl_1", 448), Spec("branch3x3dbl_2", 384, (3, 3)))
        branches = [
            _chain(x, Spec("branch1x1", 320)),
            _chain(single, Spec("branch3x3_2a", 384, row)),
            _chain(single, Spec("branch3x3_2b", 384, column)),
            _chain(double, Spec("branch3x3dbl_3a", 384, row)),
            _chain(double, Spec("branch3x3dbl_3b", 384, column)),
            _chain(self.pool(x), Spec("branch_pool", 192)),
        ]
        return jnp.concatenate(branches, -1)


class Head(nn.Module):
    """The classifier without its bias, as in the published Inception scores.

    With the bias, the test images of CIFAR-10 score 11.23 instead of 10.95
    (https://github.com/openai/improved-gan/issues/39).
    """

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `[B, 2048]` to logits `[B, 1008]`."""
        shape = features.shape[-1], OUTPUTS
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        self.param("bias", nn.initializers.zeros, shape[1:])  # the files have it
        return jnp.dot(features, kernel, precision=_PRECISION)


class Inception(nn.Module):
    """The whole network."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps images float32 `[B, 299, 299, 3]` to pooled features `[B, 2048]` and logits `[B, 1008]`."""
        stem = [
            Spec("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
            Spec("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
            Spec("Conv2d_2b_3x3", 64, (3, 3)),
        ]
        x = _halving_pool(_chain(x, *stem))
        x = _chain(x, Spec("Conv2d_3b_1x1", 80), Spec("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"))
        x = _halving_pool(x)
        for letter, pool_features in zip("bcd", (32, 64, 64), strict=True):
            x = MixedFive(pool_features, name=f"Mixed_5{letter}")(x)
        x = MixedSixFirst(name="Mixed_6a")(x)
        for letter, width in zip("bcde", (128, 160, 160, 192), strict=True):
            x = MixedSix(width, name=f"Mixed_6{letter}")(x)
        x = MixedSevenFirst(name="Mixed_7a")(x)
        x = MixedSeven(average_pool, name="Mixed_7b")(x)
        x = MixedSeven(largest_pool, name="Mixed_7c")(x)
        features = jnp.mean(x, axis=(1, 2))
        return features, Head(name="fc")(features)
