"""Flax NNX modules: the EvoNorms, any graph of the search space, pixel normalization, layers of token models.

Each replaces `nnx.BatchNorm(num_features, rngs=rngs)` and the activation after it. The `nnx.Param`s are
`scale` (gamma), `bias` (beta) and the trainable vectors of the formula (`v`, `v0`, `v1`). The
`nnx.BatchStat`s are the moving statistics. All are `[C]`, except the scalars of DyT and Derf, `[1]`.
`model.train()` and `model.eval()` choose the batch's own moments or the moving ones.

Shapes: x `[B, spatial..., C]`, rank 3 or more, where C is `num_features`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import canonicalize_dtype

from evonorms_jax.errors import UserError
from evonorms_jax.layers import channel_norm, pointwise
from evonorms_jax.layers.baselines import by_name
from evonorms_jax.layers.linen import GROUP_SCALE
from evonorms_jax.layers.tokens import alpha_start
from evonorms_jax.search_space import CATALOG, Graph, NormAct, compile_graph
from evonorms_jax.search_space.norm_act import AFFINE, check_input
from evonorms_jax.search_space.primitives import EPSILON

Initializer = Callable[..., Any]


class _GraphLayer(nnx.Module):
    """A compiled graph as a module. A subclass provides the graph.

    Args:
      num_features: number of channels C.
      leaf_inits: initializers of the trainable vectors of the formula, by name.
      rngs: generators whose stream `params` feeds every initializer.
      **others: fields of the Linen layers, with the same meaning. `use_running_average` is False by default
        and, as everywhere in NNX, the argument of a call has precedence.
    """

    def __init__(
        self,
        num_features: int,
        leaf_inits: Mapping[str, Initializer] = MappingProxyType({}),
        *,
        use_running_average: bool | None = False,
        momentum: float = 0.9,
        epsilon: float = EPSILON,
        groups: int = 32,
        group_size: int | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initializer = nnx.initializers.zeros,
        scale_init: Initializer = nnx.initializers.ones,
        axis_name: str | None = None,
        nonlinearity: bool = True,
        rngs: nnx.Rngs,
    ):
        self.num_features = num_features
        self.use_running_average = use_running_average
        self.momentum = momentum
        self.epsilon = epsilon
        self.groups = groups
        self.group_size = group_size
        self.dtype = dtype
        self.axis_name = axis_name
        self.nonlinearity = nonlinearity

        def parameter(initializer: Initializer, shape: tuple[int, ...] = (num_features,)) -> nnx.Param:
            return nnx.Param(initializer(rngs.params(), shape, param_dtype))

        self.scale = parameter(scale_init) if use_scale else nnx.data(None)
        self.bias = parameter(bias_init) if use_bias else nnx.data(None)
        leaves, stats = self._functions().init(num_features)
        self.leaf_names = tuple(leaves)
        self.stat_names = tuple(stats)
        for leaf, start in leaves.items():
            name = self._param_name(leaf)
            setattr(self, name, parameter(leaf_inits[name], start.shape))
        for name, start in stats.items():
            setattr(self, name, nnx.BatchStat(start))

    def __call__(self, x, use_running_average: bool | None = None, mask=None):
        """Applies the layer to x `[B, spatial..., C]`. In training it also advances the moving statistics.

        Arguments, result and errors are those of the Linen layers. In addition, `use_running_average` has
        precedence over the attribute, and x without `num_features` channels raises `ValueError`.
        """
        check_input(x)
        if x.shape[-1] != self.num_features:
            raise UserError(f"x must have num_features={self.num_features} channels, got shape {x.shape}")
        train = not self.stat_names or not nnx.module.first_from(
            use_running_average,
            self.use_running_average,
            error_msg="use_running_average must be given to the constructor or to the call",
        )
        scale, bias = (None if p is None else p[...] for p in (self.scale, self.bias))
        y, stats = self._functions().apply(
            {leaf: getattr(self, self._param_name(leaf))[...] for leaf in self.leaf_names},
            {name: getattr(self, name)[...] for name in self.stat_names},
            x,
            train=train,
            mask=mask,
            scale=scale,
            bias=bias,
            dtype=canonicalize_dtype(x, scale, bias, dtype=self.dtype),
        )
        if train:
            for name in self.stat_names:
                getattr(self, name)[...] = stats[name]
        return y

    def set_view(self, use_running_average: bool | None = None):
        """Sets the attribute for `nnx.view`. None keeps the old value."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def _functions(self) -> NormAct:
        return self._compiled() if self.nonlinearity else AFFINE

    def _compiled(self) -> NormAct:
        return compile_graph(
            self._graph(), self.groups, self.epsilon, self.momentum, self.axis_name, self.group_size
        )

    def _graph(self) -> Graph:
        raise NotImplementedError

    def _param_name(self, leaf: str) -> str:
        return leaf


class GraphNormAct(_GraphLayer):
    """NNX twin of the Linen `GraphNormAct`: `graph(x) * scale + bias`.

    Its arguments are `num_features`, `graph`, `v0_init`, `v1_init`, and the fields of every layer.
    """

    def __init__(
        self,
        num_features: int,
        *,
        graph: Graph,
        v0_init: Initializer = nnx.initializers.zeros,
        v1_init: Initializer = nnx.initializers.ones,
        **fields: Any,
    ):
        self.graph = graph
        super().__init__(num_features, {"v0": v0_init, "v1": v1_init}, **fields)

    def _graph(self) -> Graph:
        return self.graph


class _EvoNorm(_GraphLayer):
    """A published layer: a graph of the catalog. Its only trainable leaf, if any, has the name `v`."""

    _catalog_name = ""

    def _graph(self) -> Graph:
        return CATALOG[self._catalog_name]

    def _param_name(self, leaf: str) -> str:
        return {"v1": "v"}[leaf]


class _EvoNormWithV(_EvoNorm):
    """A published layer with the trainable vector `v`, which `v_init` initializes."""

    def __init__(self, num_features: int, *, v_init: Initializer = nnx.initializers.ones, **fields: Any):
        super().__init__(num_features, {"v": v_init}, **fields)


class EvoNormB0(_EvoNormWithV):
    """NNX twin of the Linen `EvoNormB0`: `x / max(std_bwh(x), v * x + std_wh(x)) * scale + bias`."""

    _catalog_name = "evonorm_b0"


class EvoNormB1(_EvoNorm):
    """NNX twin of the Linen `EvoNormB1`: `x / max(std_bwh(x), (x + 1) * rms_wh(x)) * scale + bias`."""

    _catalog_name = "evonorm_b1"


class EvoNormB2(_EvoNorm):
    """NNX twin of the Linen `EvoNormB2`: `x / max(std_bwh(x), rms_wh(x) - x) * scale + bias`."""

    _catalog_name = "evonorm_b2"


class EvoNormS0(_EvoNormWithV):
    """NNX twin of the Linen `EvoNormS0`: `x * sigmoid(v * x) / std_whc/g(x) * scale + bias`."""

    _catalog_name = "evonorm_s0"


class EvoNormS0a(EvoNormS0):
    """NNX twin of the Linen `EvoNormS0a`: `x * sigmoid(v * x) / std_whc/g(x) * scale + bias`.

    Without the nonlinearity it is `x / std_whc/g(x) * scale + bias`.
    """

    def __init__(self, num_features: int, *, epsilon: float = 1e-3, **fields: Any):
        super().__init__(num_features, epsilon=epsilon, **fields)

    def _graph(self) -> Graph:
        return super()._graph() if self.nonlinearity else GROUP_SCALE

    def _functions(self) -> NormAct:
        return self._compiled()


class EvoNormS1(_EvoNorm):
    """NNX twin of the Linen `EvoNormS1`: `x * sigmoid(x) / std_whc/g(x) * scale + bias`."""

    _catalog_name = "evonorm_s1"


class EvoNormS2(_EvoNorm):
    """NNX twin of the Linen `EvoNormS2`: `x * sigmoid(x) / rms_whc/g(x) * scale + bias`."""

    _catalog_name = "evonorm_s2"


class _WithActivation(_GraphLayer):
    """A layer with an activation of choice after scale and bias. None leaves it out."""

    def __init__(self, num_features: int, *, activation: Callable[[Any], Any] | None = None, **fields: Any):
        self.activation = by_name(activation)
        super().__init__(num_features, **fields)

    @property
    def _chosen(self) -> Callable[[Any], Any] | None:
        return self.activation if self.nonlinearity else None


class PixelNormAct(_WithActivation):
    """NNX twin of the Linen `PixelNormAct`: `activation(x / sqrt(mean_c(x^2) + epsilon) * scale + bias)`.

    Its arguments are `num_features`, `activation` (ReLU by default), and the fields of every layer.
    """

    def __init__(
        self,
        num_features: int,
        *,
        activation: Callable[[Any], Any] = nnx.relu,
        epsilon: float = channel_norm.PIXEL_EPSILON,
        **fields: Any,
    ):
        super().__init__(num_features, activation=activation, epsilon=epsilon, **fields)

    def _functions(self) -> NormAct:
        return channel_norm.channel_norm(self._chosen, self.epsilon)


class RMSNormAct(_WithActivation):
    """NNX twin of the Linen `RMSNormAct`: `activation(x / sqrt(mean_c(x^2) + epsilon) * scale)`.

    Its arguments are `num_features`, `activation` (none by default), and the fields of every layer.
    """

    def __init__(self, num_features: int, *, epsilon: float = 1e-6, use_bias: bool = False, **fields: Any):
        super().__init__(num_features, epsilon=epsilon, use_bias=use_bias, **fields)

    def _functions(self) -> NormAct:
        return channel_norm.channel_norm(self._chosen, self.epsilon)


class ChannelNormAct(_WithActivation):
    """NNX twin of the Linen `ChannelNormAct`: LayerNorm over channels, then an activation.

    Its arguments are `num_features`, `activation` (none by default), and the fields of every layer.
    """

    def _functions(self) -> NormAct:
        return channel_norm.channel_norm(self._chosen, self.epsilon, centered=True)


class NoNormAct(_WithActivation):
    """NNX twin of the Linen `NoNormAct`: `activation(x * scale + bias)`.

    Its arguments are `num_features`, `activation` (none by default), and the fields of every layer.
    """

    def _functions(self) -> NormAct:
        return pointwise.activation_alone(self._chosen)


class DynamicTanh(_GraphLayer):
    """NNX twin of the Linen `DynamicTanh`: `tanh(alpha * x) * scale + bias` with a scalar alpha."""

    def __init__(self, num_features: int, *, alpha_init: Initializer = alpha_start, **fields: Any):
        super().__init__(num_features, {"alpha": alpha_init}, **fields)

    def _functions(self) -> NormAct:
        return pointwise.dynamic_tanh() if self.nonlinearity else AFFINE


class DynamicErf(_GraphLayer):
    """NNX twin of the Linen `DynamicErf`: `erf(alpha * x + shift) * scale + bias` with scalars."""

    def __init__(
        self,
        num_features: int,
        *,
        alpha_init: Initializer = alpha_start,
        shift_init: Initializer = nnx.initializers.zeros,
        **fields: Any,
    ):
        super().__init__(num_features, {"alpha": alpha_init, "shift": shift_init}, **fields)

    def _functions(self) -> NormAct:
        return pointwise.dynamic_erf() if self.nonlinearity else AFFINE
