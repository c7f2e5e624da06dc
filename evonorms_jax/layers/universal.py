"""The layer of a search: a graph that is data, or compiled, with the same variables."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import canonicalize_dtype

from evonorms_jax.errors import UserError
from evonorms_jax.layers.linen import Layer
from evonorms_jax.search_space.compiled import compile_graph
from evonorms_jax.search_space.encoding import PAPER, EncodedGraph, InstructionSet, encode
from evonorms_jax.search_space.graph import Graph
from evonorms_jax.search_space.norm_act import AFFINE
from evonorms_jax.search_space.primitives import OPS
from evonorms_jax.search_space.universal import apply_encoded, initial_statistics


class UniversalNormAct(Layer):
    """The graph of a candidate, `graph(x) * scale + bias`.

    An `EncodedGraph` is interpreted by one program that serves every graph. A `Graph` is compiled to a faster
    program of its own. Both hold the same variables, whether the graph uses them or not: `v0`, `v1` and the
    moving statistics `moments`, `[CAPACITY, C]`. So a training can change from one to the other. The output
    agrees with `GraphNormAct` of the same graph. There is no `mask`, and `axis_name` is refused.

    Attributes:
      candidate: the Graph, or its EncodedGraph from `encode(graph)`. The latter may be traced. Then make the
        module inside the jitted function.
      instructions: instruction set that an EncodedGraph was made for.
    """

    candidate: EncodedGraph | Graph
    instructions: InstructionSet = PAPER

    @nn.compact
    def __call__(self, x, use_running_average: bool | None = None):
        """Applies the layer to x `[B, spatial..., C]`. Raises `ValueError` if `axis_name` is given."""
        if self.axis_name is not None:
            raise UserError(f"UniversalNormAct takes no axis_name, got {self.axis_name!r}: GraphNormAct does")
        scale, bias = self._affine_params(x.shape[-1])
        dtype = canonicalize_dtype(x, scale, bias, dtype=self.dtype)
        if not self.nonlinearity:
            return AFFINE.apply({}, {}, x, train=True, scale=scale, bias=bias, dtype=dtype)[0]
        shape = (x.shape[-1],)
        v0 = self.param("v0", nn.initializers.zeros, shape, self.param_dtype)
        v1 = self.param("v1", nn.initializers.ones, shape, self.param_dtype)
        compiled = isinstance(self.candidate, Graph)
        encoded = encode(self.candidate, self.instructions) if compiled else self.candidate
        stats = self.variable("batch_stats", "moments", initial_statistics, encoded, x.shape[-1])
        average = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        names = ("groups", "group_size", "epsilon", "momentum")
        settings = {name: getattr(self, name) for name in names} | {"train": not average}
        if compiled:
            y, new_stats = _apply_compiled(self.candidate, x, v0, v1, stats.value, **settings)
        else:
            settings["instructions"] = self.instructions
            y, new_stats = apply_encoded(self.candidate, x, v0, v1, stats.value, **settings)
        if not (average or self.is_initializing()):
            stats.value = new_stats
        return AFFINE.apply({}, {}, y, train=True, scale=scale, bias=bias, dtype=dtype)[0]


def _apply_compiled(graph: Graph, x, v0, v1, stats, *, train, **settings):
    """`apply_encoded` for a graph that is compiled."""
    layer = compile_graph(graph, **settings)
    # The live nodes that remember a moment, in the order of the names.
    rows = [row for row, (op, _) in enumerate(graph.canonical.nodes) if OPS[op].batch_dependent]
    row_of = dict(zip(layer.init(x.shape[-1])[1], rows, strict=True))
    by_name = {name: stats[row] for name, row in row_of.items()}
    y, by_name = layer.apply({"v0": v0, "v1": v1}, by_name, x, train=train)
    for name, row in row_of.items():
        stats = stats.at[row].set(by_name[name])
    return y, stats


def restart_statistics(stats: Any, encoded: EncodedGraph) -> Any:
    """The initial moving statistics of a network for another encoded graph. Leading axes may be stacked."""

    def restart(leaf: jax.Array) -> jax.Array:
        return jnp.broadcast_to(initial_statistics(encoded, leaf.shape[-1]), leaf.shape)

    return jax.tree.map(restart, stats)
