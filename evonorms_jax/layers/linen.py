"""Flax Linen modules: the EvoNorms and any graph of the search space.

Each replaces `nn.BatchNorm(use_running_average=...)` and the activation after it, with the same fields. The
parameters are `scale` (gamma), `bias` (beta) and the trainable vectors of the formula (`v`, `v0`, `v1`), all
`[C]`. The collection `batch_stats` holds the moving statistics, which are biased. `init` leaves them at their
start.

Shapes: x `[B, spatial..., C]`, rank 3 or more.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import canonicalize_dtype

from evonorms_jax.search_space import CATALOG, Graph, NormAct, compile_graph
from evonorms_jax.search_space.norm_act import AFFINE, check_input
from evonorms_jax.search_space.primitives import EPSILON

Initializer = Callable[..., Any]
#: The normalization of EvoNorm-S0 without its nonlinearity.
GROUP_SCALE = Graph.parse("x / std_whc/g(x)")


class Layer(nn.Module, kw_only=True):
    """The fields that all layers share.

    Attributes:
      use_running_average: whether to use the moving statistics instead of the batch's own. Give it here or to
        the call. Layers without batch statistics ignore it.
      momentum: decay of the moving statistics.
      epsilon: guard of divisions and roots.
      groups: upper limit of the number of channel groups. The largest divisor of C up to it is used.
      group_size: channels of a group. It has precedence over `groups`.
      dtype: dtype of the output. By default it is inferred from x and the parameters, as in Flax.
      param_dtype: dtype of the parameters.
      use_scale: whether the output is multiplied by `scale`.
      use_bias: whether `bias` is added to the output.
      scale_init: initializer of `scale`, ones by default.
      bias_init: initializer of `bias`, zeros by default.
      axis_name: mapped axis (`pmap`, `vmap`, `shard_map`) over which batch moments are synchronized. Without
        it they are per device, and under `jit` with sharded arrays global.
      nonlinearity: whether the layer has its nonlinearity. Without it an EvoNorm is `x * scale + bias`, with
        no statistics and no division, and a baseline is its normalization.
      separable: whether the layer is still a normalization without its nonlinearity. It is a fact about the
        class, not a field.
    """

    separable: ClassVar[bool] = False
    use_running_average: bool | None = None
    momentum: float = 0.9
    epsilon: float = EPSILON
    groups: int = 32
    group_size: int | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32
    use_scale: bool = True
    use_bias: bool = True
    scale_init: Initializer = nn.initializers.ones
    bias_init: Initializer = nn.initializers.zeros
    axis_name: str | None = None
    nonlinearity: bool = True

    def _affine_params(self, channels: int, modulation=None):
        """Scale and bias: those of the examples if given, or else the parameters."""
        if modulation is not None:
            return modulation
        shape = (channels,)
        scale = self.param("scale", self.scale_init, shape, self.param_dtype) if self.use_scale else None
        bias = self.param("bias", self.bias_init, shape, self.param_dtype) if self.use_bias else None
        return scale, bias

    def _axis_name(self) -> str | None:
        # `init` runs outside the mapped axis and computes no statistics.
        return None if self.is_initializing() else self.axis_name


class _GraphLayer(Layer, kw_only=True):
    """A compiled graph as a module. A subclass provides the graph."""

    def _graph(self) -> Graph:
        raise NotImplementedError

    def _param_name(self, leaf: str) -> str:
        """Name of the parameter for a trainable leaf of the graph. The field NAME_init is its initializer."""
        return leaf

    @nn.compact
    def __call__(self, x, use_running_average: bool | None = None, mask=None, modulation=None):
        """Applies the layer.

        Args:
          x: `[B, spatial..., C]`, floating point.
          use_running_average: see the field.
          mask: bool, broadcastable to x without its channel axis, True where a position is real. Moments
            ignore all other positions, and the output there is 0.
          modulation: scale and bias of each example, `[B, C]` each, as of a class-conditional layer. They
            replace the parameters `scale` and `bias`, which then do not exist.

        Returns:
          The shape of x.

        Raises:
          ValueError: if x has a rank below 3 or is not floating point, or the mask does not fit, or
            `use_running_average` is given twice or is missing.
        """
        check_input(x)
        scale, bias = self._affine_params(x.shape[-1], modulation)
        layer = self._functions()
        params, stats, train = self._variables(layer, x.shape[-1], use_running_average)
        y, new_stats = layer.apply(
            params,
            {name: variable.value for name, variable in stats.items()},
            x,
            train=train,
            mask=mask,
            scale=scale,
            bias=bias,
            dtype=canonicalize_dtype(x, scale, bias, dtype=self.dtype),
        )
        if train and not self.is_initializing():
            for name, variable in stats.items():
                variable.value = new_stats[name]
        return y

    def _functions(self) -> NormAct:
        return self._compiled() if self.nonlinearity else AFFINE

    def _compiled(self) -> NormAct:
        return compile_graph(
            self._graph(), self.groups, self.epsilon, self.momentum, self._axis_name(), self.group_size
        )

    def _variables(self, layer: NormAct, channels: int, use_running_average: bool | None):
        leaves, first_stats = layer.init(channels, self.param_dtype)
        params = {leaf: self._leaf(self._param_name(leaf), start.shape) for leaf, start in leaves.items()}
        stats = {
            name: self.variable("batch_stats", name, lambda start=start: start)
            for name, start in first_stats.items()
        }
        if not stats:
            return params, stats, True
        average = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        return params, stats, not average

    def _leaf(self, name: str, shape: tuple[int, ...]):
        return self.param(name, getattr(self, f"{name}_init"), shape, self.param_dtype)


class GraphNormAct(_GraphLayer, kw_only=True):
    """Any graph of the search space as a layer: `graph(x) * scale + bias`.

    The parameters `v0` and `v1` exist if they are live. Moving statistics have the name of their raw moment:
    `mean`, `mean_square` and `var`, then `var_1` and so on for further ones of a kind.

    Attributes:
      graph: genotype of the layer.
      v0_init: initializer of `v0`, zeros by default. A graph without a live v0 ignores it.
      v1_init: initializer of `v1`, ones by default. A graph without a live v1 ignores it.
    """

    graph: Graph
    v0_init: Initializer = nn.initializers.zeros
    v1_init: Initializer = nn.initializers.ones

    def _graph(self) -> Graph:
        return self.graph


class _EvoNorm(_GraphLayer):
    """A published layer: a graph of the catalog. Its only trainable leaf, if any, has the name `v`."""

    _catalog_name = ""

    def _graph(self) -> Graph:
        return CATALOG[self._catalog_name]

    def _param_name(self, leaf: str) -> str:
        return {"v1": "v"}[leaf]


class EvoNormB0(_EvoNorm, kw_only=True):
    """`x / max(std_bwh(x), v * x + std_wh(x)) * scale + bias`.

    Source: arXiv 2004.02967, Table 2. Batch statistic: `var`, biased.
    """

    v_init: Initializer = nn.initializers.ones  # of the trainable vector `v`
    _catalog_name = "evonorm_b0"


class EvoNormB1(_EvoNorm):
    """`x / max(std_bwh(x), (x + 1) * rms_wh(x)) * scale + bias`.

    Source: arXiv 2004.02967, Table 6. Batch statistic: `var`, biased.
    """

    _catalog_name = "evonorm_b1"


class EvoNormB2(_EvoNorm):
    """`x / max(std_bwh(x), rms_wh(x) - x) * scale + bias`.

    Source: arXiv 2004.02967, Table 6. Batch statistic: `var`, biased.
    """

    _catalog_name = "evonorm_b2"


class EvoNormS0(_EvoNorm, kw_only=True):
    """`x * sigmoid(v * x) / std_whc/g(x) * scale + bias`; no batch statistics.

    Source: arXiv 2004.02967, Table 2.
    """

    v_init: Initializer = nn.initializers.ones  # of the trainable vector `v`
    _catalog_name = "evonorm_s0"


class EvoNormS0a(EvoNormS0, kw_only=True):
    """EvoNorm-S0 with the normalization split off: the layer of timm's trained networks, not of the paper.

    `x * sigmoid(v * x) / std_whc/g(x) * scale + bias`, and `x / std_whc/g(x) * scale + bias` without the
    nonlinearity, where S0 has no division.
    Source: timm 1.0.31, `EvoNorm2dS0a`.

    Attributes:
      epsilon: guard of the root.
    """

    separable = True
    epsilon: float = 1e-3

    def _graph(self) -> Graph:
        return super()._graph() if self.nonlinearity else GROUP_SCALE

    def _functions(self) -> NormAct:
        return self._compiled()


class EvoNormS1(_EvoNorm):
    """`x * sigmoid(x) / std_whc/g(x) * scale + bias`; no batch statistics.

    Source: arXiv 2004.02967, Table 6.
    """

    _catalog_name = "evonorm_s1"


class EvoNormS2(_EvoNorm):
    """`x * sigmoid(x) / rms_whc/g(x) * scale + bias`; no batch statistics.

    Source: arXiv 2004.02967, Table 6.
    """

    _catalog_name = "evonorm_s2"
