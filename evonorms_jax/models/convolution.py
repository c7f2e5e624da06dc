"""Convolution and max-pool, each in the form that suits the platform of the program.

Shapes: B batch, H x W height and width, C channels in, O channels out, K x L kernel, G groups.

`lax.conv_general_dilated` is right on TPU and GPU. XLA:CPU runs it through a slow generic loop inside
`scan` or `fori_loop`, where a search trains its candidates. There, forward and backward of a 3x3
convolution took 20 to 35 times as long as the same sum written as patches times a matrix, and those of a
depthwise one 25 to 100 times ([64, 24, 24, 16] and [64, 12, 12, 32], two cores, float32). A 3x3 max-pool
took 9 times as long as maxima of shifted maps. Outside of loops, XLA:CPU's 3x3 convolution takes 0.3 to 0.6
of the time of patches times a matrix. There, too, a 1x1 convolution takes 2 times, a depthwise one 2 to 15
times and a pool 2 to 6 times as long as its form without `lax`.
"""

import difflib
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import dtypes
from jax import lax

from evonorms_jax.errors import UserError
from evonorms_jax.search_space import target

#: The ways to compute a convolution, see `convolve`.
IMPLEMENTATIONS = ("lax", "matmul")
_LAYOUT = ("NHWC", "HWIO", "NHWC")


class Conv(nn.Module):
    """A square two-dimensional convolution that keeps H and W / stride; `kernel` `[K, K, C / G, O]`.

    The parameters have the names and shapes of `flax.linen.Conv` whatever the implementation.
    """

    features: int  # O
    kernel_size: int  # K
    stride: int = 1  # along H and W
    feature_group_count: int = 1  # G; equal to C and O it makes a depthwise convolution
    use_bias: bool = False  # whether to add a `bias` [O], zero at the start
    dtype: Any = None  # of the computation, by default that of the input and the parameters
    implementation: str | None = None  # see `convolve`
    symmetric: bool = False  # see `convolve`
    kernel_init: nn.initializers.Initializer | None = None  # by default `fan_out_normal`

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `x` `[B, H, W, C]` to `[B, ceil(H / stride), ceil(W / stride), O]`."""
        groups = self.feature_group_count
        _check_input(x, self.features, groups)
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // groups, self.features)
        kernel = self.param("kernel", self.kernel_init or fan_out_normal(groups), shape, jnp.float32)
        zeros = nn.initializers.zeros
        bias = self.param("bias", zeros, shape[-1:], jnp.float32) if self.use_bias else None
        x, kernel, bias = dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = convolve(
            x,
            kernel,
            stride=self.stride,
            groups=groups,
            implementation=self.implementation,
            symmetric=self.symmetric,
        )
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


def fan_out_normal(groups: int = 1) -> nn.initializers.Initializer:
    """Initializer N(0, 2 / fan_out), fan_out = K * L * O / G.

    He et al. 2015 (arXiv 1502.01852) in its fan-out form, as in the released ResNet, MnasNet and
    EfficientNet code. An output of a grouped convolution feeds only its own group.
    """
    return nn.initializers.variance_scaling(2.0 * groups, "fan_out", "normal")


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    groups: int = 1,
    implementation: str | None = None,
    symmetric: bool = False,
) -> jax.Array:
    """Convolves `x` `[B, H, W, C]` with `kernel` `[K, L, C / G, O]`, padded SAME as `lax` does it.

    Args:
      x: the feature map.
      kernel: the weights, of x's dtype.
      stride: step along H and W.
      groups: G, a divisor of C and O.
      implementation: "lax" is `conv_general_dilated`. "matmul" computes 1x1 as a matrix product,
        depthwise as a sum of shifted products, any other as patches times a matrix. By default a program
        traced for a CPU has "matmul", save for larger kernels without groups outside of loops, and any other
        "lax", see `search_space.target`.
      symmetric: whether the first window is centered on the first position, for odd K and L. It is so in
        PyTorch with the padding K // 2. With a stride, SAME begins where both ends are padded most evenly.

    Returns:
      `[B, ceil(H / stride), ceil(W / stride), O]`. Both implementations can be differentiated any
      number of times, forward and reverse, and vmapped.

    Raises:
      ValueError: if the implementation is unknown, or shapes and groups do not fit.
    """
    _check_input(x, kernel.shape[-1], groups)
    if kernel.shape[2] * groups != x.shape[-1]:
        raise UserError(
            f"kernel shape {kernel.shape} with {groups} groups takes "
            f"{kernel.shape[2] * groups} channels, x has {x.shape[-1]}"
        )
    # Patches of an image with one channel are small.
    suits_cpu = groups == 1 and x.shape[-1] > 1 and kernel.shape[:2] != (1, 1) and not target.in_loop()
    implementation = _resolve(implementation, "lax" if suits_cpu else "matmul")
    pads = _pads(x, kernel.shape[:2], stride, symmetric)
    if implementation == "lax":
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT, feature_group_count=groups
        )
    if groups == x.shape[-1] == kernel.shape[-1] and groups > 1:
        return _depthwise(x, kernel, stride, pads)
    return _patches_times_matrix(x, kernel, stride, groups, pads)


def max_pool(
    x: jax.Array,
    size: int,
    *,
    stride: int = 1,
    implementation: str | None = None,
    symmetric: bool = False,
) -> jax.Array:
    """The maximum of `x` `[B, H, W, C]` over square windows, padded SAME with -inf.

    Args:
      x: the feature map.
      size: side of the window.
      stride: step along H and W.
      implementation: "lax" (`reduce_window`); "matmul", its companion on a CPU (maxima of shifted
        maps, along W and then along H). By default a program traced for a CPU has "matmul" and any other
        "lax". Where maxima are equal the first gives the gradient to one of them and the second divides it.
      symmetric: as of `convolve`.

    Returns:
      `[B, ceil(H / stride), ceil(W / stride), C]`. An unknown implementation raises `ValueError`.
    """
    pads = _pads(x, (size, size), stride, symmetric)
    if _resolve(implementation) == "lax":
        return nn.max_pool(x, (size, size), (stride, stride), pads)
    for axis in (2, 1):
        out = -(-x.shape[axis] // stride)
        padded = _pad(x, pads, axes=(axis,), value=-jnp.inf)
        shifts = (lax.slice_in_dim(padded, i, i + stride * (out - 1) + 1, stride, axis) for i in range(size))
        x = functools.reduce(jnp.maximum, shifts)
    return x


def _check_input(x, features, groups):
    if x.ndim != 4:
        raise UserError(f"a convolution takes [B, H, W, C], got shape {x.shape}")
    if x.shape[-1] % groups or features % groups:
        raise UserError(f"{groups} groups must divide the {x.shape[-1]} channels in and the {features} out")


def _resolve(implementation, on_cpu="matmul"):
    """The implementation's name. None follows the platform that the program is traced for."""
    if implementation is None:
        return on_cpu if target.platform() == "cpu" else "lax"
    if implementation not in IMPLEMENTATIONS:
        near = difflib.get_close_matches(implementation, IMPLEMENTATIONS, 1, cutoff=0.0)[0]
        raise UserError(
            f"unknown convolution implementation {implementation!r}: did you mean {near!r}? "
            f"Allowed: {', '.join(IMPLEMENTATIONS)}, or None to choose by backend"
        )
    return implementation


def _pads(x, window, stride, symmetric):
    """Rows and columns to add before and after, for a `window` (K, L). SAME has the odd one at the end."""
    if not symmetric:
        return lax.padtype_to_pads(x.shape[1:3], window, (stride, stride), "SAME")
    pads = []
    for side, size in zip(x.shape[1:3], window, strict=True):
        before, needed = (size - 1) // 2, (-(-side // stride) - 1) * stride + size
        pads.append((before, max(0, needed - before - side)))
    return pads


def _pad(x, pads, axes=(1, 2), value=0.0):
    """Pads the `axes` of `x` by the widths of `_pads`."""
    widths = [pads[axis - 1] if axis in axes else (0, 0) for axis in range(4)]
    return jnp.pad(x, widths, constant_values=value)


def _shifted(x, window, stride, pads):
    """The K * L feature maps `[B, H', W', C]` under the taps of a `window` (K, L), row by row."""
    batch, height, width, channels = x.shape
    rows, columns = (stride * (-(-n // stride) - 1) + 1 for n in (height, width))
    x = _pad(x, pads)
    return [
        lax.slice(x, (0, i, j, 0), (batch, i + rows, j + columns, channels), (1, stride, stride, 1))
        for i in range(window[0])
        for j in range(window[1])
    ]


def _patches_times_matrix(x, kernel, stride, groups, pads):
    """The shifted feature maps, side by side on the channel axis, times the kernel as a matrix.

    Measured forward + backward beside padding and concatenating along W, then along H, and beside
    adding up K * L small products: this is the fastest of the three or close to it.
    """
    height, width, inputs, outputs = kernel.shape
    shifted = _shifted(x, (height, width), stride, pads)
    patches = jnp.concatenate(shifted, axis=-1) if len(shifted) > 1 else shifted[0]
    if groups == 1:
        # As two-dimensional matrices: with more axes XLA:CPU transposes a feature map to form the
        # kernel's gradient, which doubles the time of a 1x1 convolution.
        y = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, outputs)
        return y.reshape(*patches.shape[:3], outputs)
    patches = patches.reshape(*patches.shape[:3], height * width, groups, inputs)
    kernel = kernel.reshape(height * width, inputs, groups, outputs // groups)
    return jnp.einsum("bhwkgc,kcgo->bhwgo", patches, kernel).reshape(*patches.shape[:3], outputs)


def _depthwise(x, kernel, stride, pads):
    """Sum over (i, j) of the feature map, shifted by (i, j), times `kernel[i, j]` `[1, C]`.

    Without a stride the sum along W is done on whole rows, and only its K results are shifted
    along H: 1.2 to 2 times faster. With one, that would compute rows which are then dropped.
    """
    height, width = kernel.shape[:2]
    taps = kernel.reshape(height, width, 1, 1, 1, -1)
    if stride > 1:
        taps = taps.reshape(-1, *taps.shape[2:])
        shifted = _shifted(x, (height, width), stride, pads)
        return sum(y * tap for y, tap in zip(shifted, taps, strict=True))
    padded = _pad(x, pads)
    columns = [lax.slice_in_dim(padded, j, j + x.shape[2], axis=2) for j in range(width)]
    rows = [sum(y * tap for y, tap in zip(columns, taps[i], strict=True)) for i in range(height)]
    return sum(lax.slice_in_dim(row, i, i + x.shape[1], axis=1) for i, row in enumerate(rows))


def make_divisible(channels: float, divisor: int = 8) -> int:
    """`channels` rounded to a multiple of `divisor`, half up, at least `divisor`.

    If rounding down would lose more than 10 % the next multiple is taken. Source: the released
    MobileNet and EfficientNet code, where it is `make_divisible` and `round_filters`. Raises `ValueError` if
    `channels` is not positive.
    """
    if channels <= 0:
        raise UserError(f"a channel count must be positive, got {channels}")
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
