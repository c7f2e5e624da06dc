"""The Linen face of the universal executor: a layer whose graph is data."""

from flax import linen as nn
from flax.linen.dtypes import canonicalize_dtype

from evonorms_jax.layers.affine import AFFINE
from evonorms_jax.layers.linen import Layer
from evonorms_jax.search_space.universal import Genome, apply_genome, initial_statistics


class UniversalNormAct(Layer):
    """The graph of a genome, `graph(x) * scale + bias`: one program for every graph.

    It agrees with `GraphNormAct` of the same graph, is slower, and needs no build for a new one. It always
    holds `v0`, `v1` and the moving statistics `moments`, `[CAPACITY, C]`, whether the graph uses them or not.
    `mask` and `axis_name` are not supported.

    Attributes:
      genome: from `encode(graph)`; may be traced, so make the module inside the jitted function.
    """

    genome: Genome

    @nn.compact
    def __call__(self, x, use_running_average: bool | None = None):
        """Applies the layer to x `[B, spatial..., C]`."""
        scale, bias = self._affine_params(x.shape[-1])
        dtype = canonicalize_dtype(x, scale, bias, dtype=self.dtype)
        if not self.nonlinearity:
            return _affine(x, scale, bias, dtype)
        shape = (x.shape[-1],)
        v0 = self.param("v0", nn.initializers.zeros, shape, self.param_dtype)
        v1 = self.param("v1", nn.initializers.ones, shape, self.param_dtype)
        stats = self.variable("batch_stats", "moments", initial_statistics, self.genome, x.shape[-1])
        average = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        y, new_stats = apply_genome(
            self.genome,
            x,
            v0,
            v1,
            stats.value,
            train=not average,
            groups=self.groups,
            group_size=self.group_size,
            epsilon=self.epsilon,
            momentum=self.momentum,
        )
        if not (average or self.is_initializing()):
            stats.value = new_stats
        return _affine(y, scale, bias, dtype)


def _affine(x, scale, bias, dtype):
    return AFFINE.apply({}, {}, x, train=True, scale=scale, bias=bias, dtype=dtype)[0]
