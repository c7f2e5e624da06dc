"""Baselines as Flax Linen modules: Flax's norms with an activation, pixel and filter response normalization.

They have the fields, call and shapes of `layers.linen`, so that a model can exchange one layer for another.
"""

import importlib
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import canonicalize_dtype

from evonorms_jax.layers import channel_norm
from evonorms_jax.layers.linen import Initializer, Layer, _GraphLayer
from evonorms_jax.search_space import NormAct
from evonorms_jax.search_space.moments import (
    INSTANCE,
    Moments,
    keep_only_moments,
    masked_input,
    resolve_groups,
)
from evonorms_jax.search_space.norm_act import affine, check_input, per_channel
from evonorms_jax.search_space.primitives import OPS


@dataclass(frozen=True)
class NamedFunction:
    """A function by its address.

    JAX's jitted functions, such as `nn.relu` and `nn.silu`, can neither be pickled nor copied. Their address
    can, and a copy of it compares equal.
    """

    module: str  # full name of a module
    name: str  # name of a function in it

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function."""
        return getattr(importlib.import_module(self.module), self.name)(*args, **kwargs)


def by_name(value: Any) -> Any:
    """The `NamedFunction` of a jitted function of a module, and any other value unchanged."""
    if callable(value) and not isinstance(value, types.FunctionType | type):
        name = getattr(value, "__name__", "")
        # A public address outlives a change of JAX's version.
        for module in ("jax.nn", "jax.numpy", getattr(value, "__module__", "")):
            if getattr(sys.modules.get(module), name, None) is value:
                return NamedFunction(module, name)
    return value


class FilterResponseNorm(Layer, kw_only=True):
    """Filter response normalization with its thresholded linear unit.

    `max(x / rms_wh(x) * scale + bias, tau)`, with a trainable threshold `tau` for each channel. Without the
    nonlinearity there is no threshold.
    Source: arXiv 1911.09737.

    Attributes:
      tau_init: initializer of `tau`, zeros by default.
    """

    separable = True
    tau_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x, use_running_average: bool | None = None, mask=None, modulation=None):
        """Applies the layer. Arguments, result and errors are those of the other layers."""
        del use_running_average  # statistics are of the current input alone
        check_input(x)
        scale, bias = self._affine_params(x.shape[-1], modulation)
        dtype = canonicalize_dtype(x, scale, bias, dtype=self.dtype)
        tau = None
        if self.nonlinearity:
            tau = self.param("tau", self.tau_init, (x.shape[-1],), self.param_dtype)

        def forward(x, mask, scale, bias, tau):
            x, mask = masked_input(x, mask)
            if x.size == 0:
                return x.astype(dtype)
            x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            mean_square = Moments(x, mask=mask).mean_square(INSTANCE)
            y = affine(x, scale, bias, factor=1 / jnp.sqrt(mean_square + self.epsilon))
            if tau is not None:
                y = OPS["max"].function(y, per_channel(tau, y), epsilon=self.epsilon)
            return affine(y, mask=mask).astype(dtype)

        return keep_only_moments(forward)(x, mask, scale, bias, tau)


class _Baseline(Layer, kw_only=True):
    """A norm of Flax followed by an activation.

    Attributes:
      activation: function of the normalized output, unless `nonlinearity` is False.
    """

    separable = True
    activation: Callable[[Any], Any] = nn.relu

    def __post_init__(self):
        self.activation = by_name(self.activation)
        super().__post_init__()

    def _norm(self, x, average: bool | None, fields: dict[str, Any]) -> Callable[..., Any]:
        """The norm of Flax with the fields that all have."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, x, use_running_average: bool | None = None, mask=None, modulation=None):
        """Applies the layer. Arguments, result and errors are those of the other layers."""
        check_input(x)
        x, mask = masked_input(x, mask)
        norm = self._norm(x, use_running_average, self._shared_fields(modulation))
        if x.size == 0:
            # Flax's moments over no element are NaN. A single zero gives the parameters and the dtype.
            return norm(jnp.zeros([max(size, 1) for size in x.shape], x.dtype))[tuple(map(slice, x.shape))]
        y = norm(x, mask=None if mask is None else self._moment_mask(x, mask))
        y = y if modulation is None else affine(y, *modulation).astype(y.dtype)
        y = self.activation(y) if self.nonlinearity else y
        return y if mask is None else jnp.where(mask, y, 0)

    def _moment_mask(self, x, mask):
        """The mask for moments of single examples, with all channels.

        An example without a real position counts as real throughout: Flax's moments over an empty set are
        NaN, and so would be every gradient.
        """
        real = jnp.any(mask, tuple(range(1, mask.ndim)), keepdims=True)
        return jnp.broadcast_to(mask | ~real, x.shape)

    def _shared_fields(self, modulation) -> dict[str, Any]:
        names = ("epsilon", "dtype", "param_dtype", "use_scale", "use_bias", "scale_init", "bias_init")
        fields = {name: getattr(self, name) for name in names} | {"name": "norm"}
        return fields if modulation is None else fields | {"use_scale": False, "use_bias": False}


class BatchNormAct(_Baseline):
    """`activation(nn.BatchNorm(x))` with the batch statistics `mean` and `var`.

    Flax gives each device of `axis_name` the same weight, however many of its positions are masked.
    """

    def _norm(self, x, average, fields):
        average = nn.merge_param("use_running_average", self.use_running_average, average)
        return nn.BatchNorm(
            use_running_average=average or x.size == 0,
            momentum=self.momentum,
            axis_name=self._axis_name(),
            **fields,
        )

    def _moment_mask(self, x, mask):
        return mask


class GroupNormAct(_Baseline):
    """`activation(nn.GroupNorm(x))`, with `groups` or `group_size` resolved as for the EvoNorms."""

    def _norm(self, x, average, fields):
        groups = resolve_groups(x.shape[-1], self.groups, self.group_size)
        return nn.GroupNorm(num_groups=groups, **fields)


class LayerNormAct(_Baseline):
    """`activation(nn.LayerNorm(x))` over space and channels, with parameters per channel."""

    def _norm(self, x, average, fields):
        return nn.LayerNorm(reduction_axes=tuple(range(1, x.ndim)), feature_axes=-1, **fields)


class InstanceNormAct(_Baseline):
    """`activation(nn.InstanceNorm(x))`."""

    def _norm(self, x, average, fields):
        return nn.InstanceNorm(**fields)


class _WithActivation(_GraphLayer, kw_only=True):
    """A layer with an activation of choice after scale and bias.

    Attributes:
      activation: function of the output, unless `nonlinearity` is False. None leaves it out.
    """

    separable = True
    activation: Callable[[Any], Any] | None = None

    def __post_init__(self):
        self.activation = by_name(self.activation)
        super().__post_init__()

    @property
    def _chosen(self) -> Callable[[Any], Any] | None:
        return self.activation if self.nonlinearity else None


class PixelNormAct(_WithActivation, kw_only=True):
    """`activation(x / sqrt(mean_c(x^2) + epsilon) * scale + bias)`, the mean over channels at each position.

    Source: arXiv 1710.10196, section 4.2.

    Attributes:
      epsilon: guard of the root, by default that of the publication.
      activation: function of the normalized output, unless `nonlinearity` is False.
    """

    epsilon: float = channel_norm.PIXEL_EPSILON
    activation: Callable[[Any], Any] | None = nn.relu

    def _functions(self) -> NormAct:
        return channel_norm.channel_norm(self._chosen, self.epsilon)
