"""Moments over an index set: the only place of the package that reduces an activation.

Shapes: `[B, *S, C]` is batch, any number of spatial axes, channels; any of these axes may have the size
1 where a tensor is constant along it. Every moment keeps its reduced axes with size 1.

One pass over a tensor gives its moments per instance and channel, `[B, 1.., C]`; those of the batch, of
the layer and of groups are then exact combinations of these small arrays, by the law of total variance:
`var(x) = mean_i(var_i + (mean_i - mean(x))^2)`. A layer with two index sets reads its input once.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from evonorms_jax.errors import UserError

BATCH = "bwh"
LAYER = "whc"
INSTANCE = "wh"
GROUP = "whc/g"
#: Index sets of the aggregations: `bwh` batch, `whc` layer, `wh` instance, `whc/g` group.
INDEX_SETS: tuple[str, ...] = (BATCH, LAYER, INSTANCE, GROUP)

#: The residual name of every moment, for `jax.checkpoint` policies that keep nothing else.
RESIDUAL_NAME = "evonorm_moment"


def resolve_groups(channels: int, groups: int = 32, group_size: int | None = None) -> int:
    """Number of channel groups: the largest divisor of `channels` not above the one asked for.

    Args:
      channels: C, at least 1.
      groups: the number of groups wanted, at least 1; C=48 gives 24 for 32, C=17 gives 17.
      group_size: if given, wins over `groups`: asks for groups of at least this many channels.

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
      x: `[B, *S, C]`, floating point of at least 32 bits.
      mask: bool `[B, *S, 1]`, True where a position is real, or None. Of a tensor that is constant over
        space only the number of real positions per instance matters.
      groups: number of channel groups of the index set `whc/g`.
      axis_name: the mapped axis over which batch moments are synchronised, or None.
    """

    def __init__(
        self,
        x: jax.Array,
        *,
        mask: jax.Array | None = None,
        groups: int = 1,
        axis_name: str | None = None,
    ):
        self._x = x
        self._mask = mask
        self._groups = groups
        self._axis_name = axis_name
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
        return count if self._axis_name is None else jax.lax.psum(count, self._axis_name)

    @functools.cached_property
    def _weights(self) -> jax.Array | None:
        """Real positions per instance, `[B, 1.., 1]`."""
        if self._mask is None:
            return None
        return jnp.sum(self._mask, self._space, dtype=self._x.dtype, keepdims=True)

    def _instance_average(self, values: jax.Array) -> jax.Array:
        if self._mask is None:
            return jnp.mean(values, self._space, keepdims=True)
        total = jnp.sum(jnp.where(self._mask, values, 0), self._space, keepdims=True)
        return total / jnp.maximum(self._weights, 1)

    @functools.cached_property
    def _instance_moments(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Per instance and channel, in one pass: s, `mu(x - s)`, and `s2 = mu((x-s)^2) - mu(x-s)^2`.

        With any shift s near the data the difference loses nothing, whatever the mean of x. It must not be
        rounded, as a mean would be: XLA may compute it twice, and differently. A position of x serves.
        """
        if self._constant_over_space:
            return _residual(self._x), jnp.zeros_like(self._x), jnp.zeros_like(self._x)
        shift = _residual(jax.lax.stop_gradient(self._first_position()))
        offset = _residual(self._instance_average(self._x - shift))
        # Not `x - shift` again: what two reductions share, XLA writes to memory on a CPU.
        squares = _residual(self._instance_average(jnp.square(self._x + -shift)))
        return shift, offset, jnp.maximum(squares - jnp.square(offset), 0)

    def _first_position(self) -> jax.Array:
        """x at the first real position of every instance, `[B, 1.., C]`; 0 if there is none."""
        if self._mask is None:
            return self._x[(slice(None), *(slice(0, 1) for _ in self._space))]
        positions = self._x.reshape(self._x.shape[0], -1, self._x.shape[-1])
        first = jnp.argmax(self._mask.reshape(*positions.shape[:2], 1), 1, keepdims=True)
        chosen = jnp.take_along_axis(positions, first, 1)
        return chosen.reshape(-1, *(1 for _ in self._space), chosen.shape[-1])

    @functools.cached_property
    def _instance_mean_square(self) -> jax.Array:
        squares = jnp.square(self._x)
        return _residual(squares if self._constant_over_space else self._instance_average(squares))

    def _over(self, index_set: str, moment: str) -> jax.Array:
        if (index_set, moment) not in self._known:
            self._known[index_set, moment] = _residual(self._compute(index_set, moment))
        return self._known[index_set, moment]

    def _compute(self, index_set: str, moment: str) -> jax.Array:
        if moment == "mean_square":
            value = self._combine(index_set, self._instance_mean_square)
        else:
            shift, offset, variance = self._instance_moments
            value = self._combine(index_set, shift + offset)
            if moment == "variance" and index_set == INSTANCE:
                value = variance
            elif moment == "variance":
                # Not (shift + offset) - mean: at a mean of 1e4 the sum has lost digits of a deviation of 1.
                distance = shift - self._expand(index_set, value) + offset
                value = self._combine(index_set, variance + jnp.square(distance))
        return self._expand(index_set, value)

    def _combine(self, index_set: str, values: jax.Array) -> jax.Array:
        """Averages `[B, 1.., C]` over what the index set adds to an instance."""
        if index_set == INSTANCE:
            return values
        if index_set == BATCH:
            return self._batch_average(values)
        if index_set == GROUP and values.shape[-1] > 1:
            grouped = values.reshape(*values.shape[:-1], self._groups, -1)
            return jnp.mean(grouped, -1)
        return jnp.mean(values, -1, keepdims=True)

    def _expand(self, index_set: str, values: jax.Array) -> jax.Array:
        """Repeats a value per group, `[B, 1.., G]`, for each channel of the group."""
        channels = self._x.shape[-1]
        if index_set != GROUP or values.shape[-1] in (1, channels):
            return values
        return jnp.repeat(values, channels // self._groups, axis=-1)

    def _batch_average(self, values: jax.Array) -> jax.Array:
        if self._mask is None:
            average = jnp.mean(values, 0, keepdims=True)
            return average if self._axis_name is None else jax.lax.pmean(average, self._axis_name)
        # Devices see unequal masks: sums are added up before they are divided.
        # An instance without a real position may hold anything, and inf * 0 is NaN.
        weighted = jnp.where(self._weights > 0, values * self._weights, 0)
        total = jnp.sum(weighted, 0, keepdims=True)
        if self._axis_name is not None:
            total = jax.lax.psum(total, self._axis_name)
        return total / jnp.maximum(self.real_count, 1)


def _residual(moment: jax.Array) -> jax.Array:
    """Marks a moment as worth keeping for the backward pass: it is small, and a pass over x to remake."""
    return checkpoint_name(moment, RESIDUAL_NAME)


def keep_only_moments(layer: Callable[..., Any]) -> Callable[..., Any]:
    """The layer with a backward pass that keeps its arguments and moments and recomputes the rest.

    What a moment costs is a pass over x; what the element-wise rest costs is arithmetic.
    """
    policy = jax.checkpoint_policies.save_only_these_names(RESIDUAL_NAME)
    return jax.checkpoint(layer, policy=policy)


def masked_input(x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """Sets what lies outside the mask to 0, so that NaN there reaches neither values nor gradients.

    Args:
      x: `[B, *S, C]`.
      mask: bool, broadcastable to `[B, *S]`, True where a position is real; None keeps everything.

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
