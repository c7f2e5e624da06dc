"""Moments over an index set, as compiled layers take them.

Shapes: `[B, *S, C]` is batch, any number of spatial axes, channels. Any of these axes may have the size 1 if
a tensor is constant along it, and all but C may have the size 0. Every moment keeps its reduced axes with
size 1.

Numerical details:
- One pass over a tensor gives its moments per instance and channel, `[B, 1.., C]`. Those of the batch, of
  the layer and of groups are exact combinations of these small arrays, by the law of total variance:
  `var(x) = mean_i(var_i + (mean_i - mean(x))^2)`. A layer with two index sets reads its input once.
- The pass sums `x - pivot` and its square. A pivot near the data keeps the digits of a variance that is far
  below the squared mean. `Moments._pivot` chooses it.
- A variance is never negative, and a mean over no element is 0.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from evonorms_jax.errors import UserError
from evonorms_jax.search_space.target import platform


class IndexSet(NamedTuple):
    """The axes that a moment averages over."""

    batch: bool  # whether it averages over the batch; such a set averages over space, too
    space: bool
    channels: str  # "one" for a moment of each channel, "group" for one of each group, "all" for one of all
    latex: str  # the indices in an equation


BATCH = "bwh"
LAYER = "whc"
INSTANCE = "wh"
GROUP = "whc/g"
POSITION = "c"
#: The index sets of the paper, in the order of its ops.
PAPER_SETS = (BATCH, LAYER, INSTANCE, GROUP)
#: Every index set, those of the paper first. This module, the universal program, the NumPy reference and the
#: op table all read it. A new index set is one entry, and its ops are off until a search names them. `c` is
#: beyond the paper: the channels of one position, as LayerNorm and RMSNorm of a token model average over.
INDEX_SETS: dict[str, IndexSet] = {
    BATCH: IndexSet(batch=True, space=True, channels="one", latex="b,w,h"),
    LAYER: IndexSet(batch=False, space=True, channels="all", latex="w,h,c"),
    INSTANCE: IndexSet(batch=False, space=True, channels="one", latex="w,h"),
    GROUP: IndexSet(batch=False, space=True, channels="group", latex="w,h,c/g"),
    POSITION: IndexSet(batch=False, space=False, channels="all", latex="c"),
}

#: The residual name of every moment, for `jax.checkpoint` policies that keep no other value.
RESIDUAL_NAME = "evonorm_moment"


def index_set_named(name: str) -> IndexSet:
    """The entry of `INDEX_SETS`. Raises `ValueError` if there is none, or it asks for too much."""
    if name not in INDEX_SETS:
        raise UserError(f"unknown index set {name!r}; known: {', '.join(INDEX_SETS)}")
    index_set = INDEX_SETS[name]
    if index_set.channels not in ("one", "group", "all"):
        raise UserError(f"index set {name!r}: channels must be one, group or all, got {index_set.channels!r}")
    if index_set.batch and not index_set.space:
        raise UserError(f"index set {name!r} averages over the batch and so must average over space")
    return index_set


def resolve_groups(channels: int, groups: int = 32, group_size: int | None = None) -> int:
    """Number of channel groups: the largest divisor of `channels` not above the requested number.

    Args:
      channels: number of channels C, at least 1.
      groups: number of groups requested, at least 1. C=48 gives 24 for 32, C=17 gives 17.
      group_size: smallest number of channels in a group, at least 1. If given, it replaces `groups`.

    Raises:
      ValueError: if `groups` or `group_size` is below 1.
    """
    if group_size is not None:
        if group_size < 1:
            raise UserError(f"group_size must be at least 1, got {group_size}")
        groups = max(1, channels // group_size)
    if groups < 1:
        raise UserError(f"groups must be at least 1, got {groups}")
    return max(g for g in range(1, min(groups, channels) + 1) if channels % g == 0)


class Moments:
    """The moments of one tensor, each computed when first asked for and at most once.

    Args:
      x: tensor `[B, *S, C]`, floating point of at least 32 bits.
      mask: bool `[B, *S, 1]`, True where a position is real, or None. Of a tensor that is constant over
        space only the number of real positions per instance matters.
      groups: number of channel groups of the index sets over groups.
      axis_name: mapped axis over which batch moments are synchronized, or None.
      coarse: whether x was bfloat16, and so has 8 significant bits.
    """

    def __init__(
        self,
        x: jax.Array,
        *,
        mask: jax.Array | None = None,
        groups: int = 1,
        axis_name: str | None = None,
        coarse: bool = False,
    ):
        self._x = x
        self._mask = mask
        self._groups = groups
        self._axis_name = axis_name
        self._coarse = coarse
        self._space = tuple(range(1, x.ndim - 1))
        self._constant_over_space = all(x.shape[axis] == 1 for axis in self._space)
        self._known: dict[tuple[str, str], jax.Array] = {}

    def mean(self, index_set: str) -> jax.Array:
        """`mu_I(x)`."""
        return self._over(index_set, "mean")

    def mean_square(self, index_set: str) -> jax.Array:
        """`mu_I(x^2)`."""
        return self._over(index_set, "mean_square")

    def variance(self, index_set: str) -> jax.Array:
        """`s2_I(x) = mu_I((x - mu_I(x))^2)`: biased, never negative."""
        return self._over(index_set, "variance")

    @functools.cached_property
    def real_count(self) -> jax.Array | None:
        """Number of real positions over all devices, a scalar, or None without a mask."""
        if self._mask is None:
            return None
        count = jnp.sum(self._mask, dtype=jnp.float32)
        return count if self._axis_name is None else lax.psum(count, self._axis_name)

    @functools.cached_property
    def _weights(self) -> jax.Array | None:
        """Real positions per instance, `[B, 1.., 1]`."""
        if self._mask is None:
            return None
        return jnp.sum(self._mask, self._space, dtype=self._x.dtype, keepdims=True)

    def _instance_average(self, values: jax.Array) -> jax.Array:
        if self._mask is None:
            return _mean(values, self._space)
        total = jnp.sum(jnp.where(self._mask, values, 0), self._space, keepdims=True)
        return total / jnp.maximum(self._weights, 1)

    @functools.cached_property
    def _instance_moments(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Per instance and channel: pivot s, `mu(x - s)`, and `s2 = mu((x - s)^2) - mu(x - s)^2`."""
        if self._constant_over_space:
            return _residual(self._x), jnp.zeros_like(self._x), jnp.zeros_like(self._x)
        pivot = self._pivot(self._space, self._mask)
        if pivot is None:
            mean = _residual(self._instance_average(self._x))
            variance = jnp.maximum(self._instance_mean_square - jnp.square(mean), 0)
            return jnp.zeros_like(mean), mean, variance
        pivot = _residual(pivot)
        offset = _residual(self._instance_average(self._x - pivot))
        # Not `x - pivot` again: XLA:CPU writes a tensor to memory that two reductions share.
        squares = _residual(self._instance_average(jnp.square(self._x + -pivot)))
        return pivot, offset, jnp.maximum(squares - jnp.square(offset), 0)

    def _pivot(self, axes: tuple[int, ...], mask: jax.Array | None = None) -> jax.Array | None:
        """A number near the values along the axes, of size 1 there, without a gradient, or None for 0.

        The pivot must be a value of x, not a rounded mean: XLA may compute a mean twice, and differently.

        On a TPU the pivot of coarse x is 0. XLA:TPU sums x and x^2 while a convolution before them writes x.
        A pivot taken from x prevents that and costs one more read. It would gain little: rounding x to 8 bits
        has already changed the variance by about mean(x^2) / 2^19, and sums in float32 lose no more.
        """
        if self._coarse and platform() == "tpu":
            return None
        x = lax.stop_gradient(self._x)
        if mask is None and x.size and not _sharded(x, axes):
            return x[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))]
        # A maximum needs no position, so that the axes may be masked, sharded over devices, or empty.
        largest = jnp.max(x, axes, keepdims=True, initial=-jnp.inf, where=mask)
        return jnp.where(jnp.isfinite(largest), largest, 0)

    @functools.cached_property
    def _instance_mean_square(self) -> jax.Array:
        squares = jnp.square(self._x)
        return _residual(squares if self._constant_over_space else self._instance_average(squares))

    def _over(self, index_set: str, moment: str) -> jax.Array:
        if (index_set, moment) not in self._known:
            compute = self._compute if index_set_named(index_set).space else self._compute_per_position
            self._known[index_set, moment] = _residual(compute(index_set, moment))
        return self._known[index_set, moment]

    def _compute(self, name: str, moment: str) -> jax.Array:
        index_set = INDEX_SETS[name]
        if moment == "mean_square":
            value = self._combine(index_set, self._instance_mean_square)
        else:
            pivot, offset, variance = self._instance_moments
            value = self._combine(index_set, pivot + offset)
            if moment == "variance" and index_set == INDEX_SETS[INSTANCE]:
                value = variance
            elif moment == "variance":
                # Not (pivot + offset) - mean: at a mean of 1e4 the sum has lost digits of a deviation of 1.
                distance = pivot - self._expand(index_set, value) + offset
                value = self._combine(index_set, variance + jnp.square(distance))
        return self._expand(index_set, value)

    def _compute_per_position(self, name: str, moment: str) -> jax.Array:
        """A moment over channels alone, `[B, *S, C or 1]`. It needs no mask, which hides whole positions.

        A variance takes a second pass over x, around the mean: one channel may be so large that a pivot does
        not serve the others.
        """
        index_set = INDEX_SETS[name]

        def average(values):
            return self._expand(index_set, self._combine(index_set, values))

        if moment == "mean_square":
            return average(jnp.square(self._x))
        if moment == "mean":
            pivot = self._pivot((self._x.ndim - 1,))
            return average(self._x) if pivot is None else pivot + average(self._x - pivot)
        mean = self._over(name, "mean")
        center = lax.stop_gradient(mean)
        # The second term is 0. With it the derivatives of any order are right, and the first costs no pass.
        return average(jnp.square(self._x - center)) - jnp.square(mean - center)

    def _combine(self, index_set: IndexSet, values: jax.Array) -> jax.Array:
        """Averages `[B, 1.., C]` over the batch and channels of the index set."""
        if index_set.channels == "group" and values.shape[-1] > 1:
            grouped = values.reshape(*values.shape[:-1], self._groups, values.shape[-1] // self._groups)
            values = jnp.mean(grouped, -1)
        elif index_set.channels != "one":
            values = jnp.mean(values, -1, keepdims=True)
        return self._batch_average(values) if index_set.batch else values

    def _expand(self, index_set: IndexSet, values: jax.Array) -> jax.Array:
        """Repeats a value per group, `[B, 1.., G]`, for each channel of the group."""
        channels = self._x.shape[-1]
        if index_set.channels != "group" or values.shape[-1] in (1, channels):
            return values
        size = channels // self._groups
        repeated = jnp.broadcast_to(jnp.expand_dims(values, -1), (*values.shape, size))
        return repeated.reshape(*values.shape[:-1], channels)

    def _batch_average(self, values: jax.Array) -> jax.Array:
        if self._mask is None:
            average = _mean(values, (0,))
            return average if self._axis_name is None else lax.pmean(average, self._axis_name)
        # Devices see unequal masks: sums are added up before they are divided.
        # An instance without a real position may hold anything, and inf * 0 is NaN.
        weighted = jnp.where(self._weights > 0, values * self._weights, 0)
        total = jnp.sum(weighted, 0, keepdims=True)
        if self._axis_name is not None:
            total = lax.psum(total, self._axis_name)
        return total / jnp.maximum(self.real_count, 1)


def _mean(values: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The mean over `axes`, kept with size 1. It is 0 over an empty set."""
    count = math.prod(values.shape[axis] for axis in axes)
    return jnp.sum(values, axes, keepdims=True) / max(count, 1)


def _sharded(x: jax.Array, axes: tuple[int, ...]) -> bool:
    """Whether one of the axes is split over an Explicit mesh axis, whose positions cannot be indexed."""
    spec = jax.typeof(x).sharding.spec
    return any(spec[axis] is not None for axis in axes if axis < len(spec))


def _residual(moment: jax.Array) -> jax.Array:
    """Marks a moment as worth keeping for the backward pass: it is small, and a pass over x to remake."""
    return checkpoint_name(moment, RESIDUAL_NAME)


def keep_only_moments(layer: Callable[..., Any]) -> Callable[..., Any]:
    """The layer with a backward pass that needs only its arguments and moments, and recomputes the rest.

    A moment costs a pass over x to recompute, and the element-wise rest costs only arithmetic.

    XLA:CPU would keep the values of the forward pass that it finds computed twice. A barrier hides there that
    they are the same. On a TPU such a barrier prevents fusion with the convolutions around the layer, which
    costs a third more traffic. Without one, XLA:TPU recomputes the element-wise rest by itself.
    """
    policy = jax.checkpoint_policies.save_only_these_names(RESIDUAL_NAME)

    @functools.partial(jax.checkpoint, policy=policy, prevent_cse=False)
    def recomputed(*arguments):
        if platform() != "tpu":
            # A barrier for each array: a common one would give all the same varying axes inside `shard_map`.
            arguments = jax.tree.map(lax.optimization_barrier, arguments)
        return layer(*arguments)

    return recomputed


def masked_input(x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """Sets x to 0 outside the mask, so that NaN there reaches neither values nor gradients.

    Args:
      x: input `[B, *S, C]`.
      mask: bool, broadcastable to `[B, *S]`, True where a position is real. Without a mask all are real.

    Returns:
      x, and the mask as bool `[B, *S, 1]` (or None).

    Raises:
      ValueError: if the mask is not boolean or does not broadcast to `[B, *S]`.
    """
    if mask is None:
        return x, None
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise UserError(f"the mask must be boolean (True is real), got dtype {mask.dtype}")
    fits = mask.ndim <= x.ndim - 1 and all(
        m in (1, n) for m, n in zip(mask.shape[::-1], x.shape[-2::-1], strict=False)
    )
    if not fits:
        raise UserError(f"the mask must broadcast to {x.shape[:-1]}, got shape {mask.shape}")
    mask = mask.reshape((1,) * (x.ndim - 1 - mask.ndim) + mask.shape)
    mask = jnp.broadcast_to(mask, x.shape[:-1])[..., None]
    return jnp.where(mask, x, 0), mask
