"""A graph compiled to pure functions: one program, specialised to the graph.

Shapes: x `[B, *S, C]` with one spatial axis or more, parameters and statistics `[C]`.
"""

from collections import Counter
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evonorms_jax.errors import UserError
from evonorms_jax.search_space import moments
from evonorms_jax.search_space.graph import Graph
from evonorms_jax.search_space.norm_act import NormAct, Params, Stats, affine, check_input, per_channel
from evonorms_jax.search_space.primitives import EPSILON, INPUT, LEAF_INIT, LEAVES, OPS, ZERO


class _RawMoment(NamedTuple):
    """The moment that an aggregation is made of, which a batch aggregation remembers for inference."""

    method: str  # of `Moments`
    statistic: str  # name of the moving statistic
    start: float  # its value before the first step


_RAW_MOMENTS = {
    "mean": _RawMoment("mean", "mean", 0.0),
    "rms": _RawMoment("mean_square", "mean_square", 1.0),
    "std": _RawMoment("variance", "var", 1.0),
}


def compile_graph(
    graph: Graph,
    groups: int = 32,
    epsilon: float = EPSILON,
    momentum: float = 0.9,
    axis_name: str | None = None,
    group_size: int | None = None,
) -> NormAct:
    """Specialises a graph to a `NormAct`: pure, jittable, vmappable, twice differentiable.

    Only live nodes are traced, equal sub-expressions once. Everything is computed in float32 (float64 for
    float64 inputs) and cast to the dtype of x at the end. The backward pass needs x and the moments, which
    are small, and recomputes the element-wise rest (see `moments.keep_only_moments`). An array without an
    element has an empty output and leaves the statistics unchanged, as a batch does that is masked entirely.

    Each live batch aggregation remembers its raw moment for inference:
    `stats <- momentum * stats + (1 - momentum) * moment`, under the names `mean` (starts 0), `mean_square`
    (1) and `var` (1, biased), with `_1`, `_2`, ... for further ones of a kind.

    Args:
      graph: the candidate.
      groups: channel groups of `whc/g`; the largest divisor of C that is not above it is used.
      epsilon: the guard of div, log and the second-order moments.
      momentum: decay of the moving statistics, Flax's convention.
      axis_name: name of a mapped axis (`vmap`, `pmap`, `shard_map`) over which batch moments, and so the
        moving statistics, are synchronised. Without it they are those of each device's own part.
      group_size: channels of a group, wins over `groups` if given.

    Raises:
      ValueError: if `groups` or `group_size` is below 1 or `momentum` is not in [0, 1]; by `apply`, if x is
        not floating point or its rank is below 3, or the mask does not fit.
    """
    canonical = graph.canonical
    moments.resolve_groups(1, groups, group_size)
    if not 0 <= momentum <= 1:
        raise UserError(f"momentum must be in [0, 1], got {momentum}")
    statistics = _statistic_names(canonical)

    def init(channels: int, dtype=jnp.float32) -> tuple[Params, Stats]:
        params = {
            LEAVES[i]: jnp.full((channels,), LEAF_INIT[LEAVES[i]], dtype)
            for i in canonical.live_nodes
            if i < len(LEAVES) and LEAVES[i] in LEAF_INIT
        }
        kinds = {name: OPS[canonical.nodes[i - len(LEAVES)].op].kind for i, name in statistics.items()}
        starts = {name: _RAW_MOMENTS[kind].start for name, kind in kinds.items()}
        return params, {name: jnp.full((channels,), start, jnp.float32) for name, start in starts.items()}

    def apply(params, stats, x, *, train, mask=None, scale=None, bias=None, dtype=None):
        check_input(x)

        def forward(params, stats, x, mask, scale, bias):
            x, mask = moments.masked_input(x, mask)
            if x.size == 0:
                return x.astype(dtype or x.dtype), stats
            count = moments.resolve_groups(x.shape[-1], groups, group_size)
            trace = _Trace(x, mask, params, epsilon, axis_name, count)
            y, factor, stats = trace.run(canonical, statistics, stats, train, momentum)
            return affine(y, scale, bias, mask, factor).astype(dtype or x.dtype), stats

        return moments.keep_only_moments(forward)(params, stats, x, mask, scale, bias)

    return NormAct(init, apply)


def _statistic_names(canonical: Graph) -> dict[int, str]:
    """The unique name of each batch aggregation's moving statistic by node index."""
    names: dict[int, str] = {}
    seen: Counter[str] = Counter()
    for index, (op, _) in enumerate(canonical.nodes, start=len(LEAVES)):
        if OPS[op].batch_dependent:
            name = _RAW_MOMENTS[OPS[op].kind].statistic
            names[index] = f"{name}_{seen[name]}" if seen[name] else name
            seen[name] += 1
    return names


class _Trace:
    """Values of the nodes while one application of a graph is traced.

    A value keeps the size 1 on every axis along which it is constant: an aggregation costs no memory, and
    an op on aggregations no time.
    """

    def __init__(self, x, mask, params, epsilon, axis_name, groups):
        self.x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        self.mask = mask
        self.epsilon = epsilon
        self.axis_name = axis_name
        self.groups = groups
        self.coarse = x.dtype == jnp.bfloat16
        self.values = {INPUT: self.x, ZERO: per_channel(jnp.zeros((1,)), self.x)}
        self.values |= {LEAVES.index(k): per_channel(v, self.x) for k, v in params.items()}
        self.moments: dict[int, moments.Moments] = {}

    def moments_of(self, index: int) -> moments.Moments:
        if index not in self.moments:
            self.moments[index] = moments.Moments(
                self.values[index],
                mask=self.mask,
                groups=self.groups,
                axis_name=self.axis_name,
                coarse=self.coarse and index == INPUT,
            )
        return self.moments[index]

    def run(self, graph: Graph, statistics, stats: Stats, train: bool, momentum: float):
        """(y, a factor of it that is constant over space or None, statistics)."""
        new_stats = dict(stats)
        last = len(LEAVES) + len(graph.nodes) - 1
        factor = None
        large = _at_least_epsilon(graph, self.epsilon)
        for index, (op_name, inputs) in enumerate(graph.nodes, start=len(LEAVES)):
            op = OPS[op_name]
            if op.kind is None:
                arguments = [self.values[i] for i in inputs]
                # The guard of a division costs a pass several operations, so it is left out where it is idle.
                epsilon = 0 if op_name == "div" and inputs[1] in large else self.epsilon
                if index == last and op_name == "div" and _constant_over_space(arguments[1]):
                    self.values[index] = arguments[0]
                    factor = op.function(1.0, arguments[1], epsilon=epsilon)
                else:
                    self.values[index] = op.function(*arguments, epsilon=epsilon)
                continue
            source = self.moments_of(inputs[0])
            if index in statistics and not train:
                raw = per_channel(stats[statistics[index]], self.x)
            else:
                raw = getattr(source, _RAW_MOMENTS[op.kind].method)(op.index_set)
            if index in statistics and train:
                name = statistics[index]
                new_stats[name] = _advance(stats[name], raw, momentum, source.real_count)
            self.values[index] = raw if op.kind == "mean" else jnp.sqrt(raw + self.epsilon)
        return jnp.broadcast_to(self.values[last], self.x.shape), factor, new_stats


def _at_least_epsilon(graph: Graph, epsilon: float) -> set[int]:
    """Nodes whose value is never below epsilon: roots of moments, `sqrt(raw + epsilon)`, and their maxima."""
    found: set[int] = set()
    for index, (op_name, inputs) in enumerate(graph.nodes, start=len(LEAVES)):
        is_root = OPS[op_name].kind in ("rms", "std") and epsilon <= 1
        if is_root or (op_name == "max" and not found.isdisjoint(inputs)):
            found.add(index)
    return found


def _constant_over_space(value: jax.Array) -> bool:
    return all(size == 1 for size in value.shape[1:-1])


def _advance(old: jax.Array, raw: jax.Array, momentum: float, real_count) -> jax.Array:
    """Moving average of a raw moment. A batch without a real position leaves it unchanged."""
    raw = jnp.squeeze(jax.lax.stop_gradient(raw), tuple(range(raw.ndim - 1)))
    batch = jnp.broadcast_to(raw, old.shape).astype(old.dtype)
    if real_count is None:
        return momentum * old + (1 - momentum) * batch
    # Two weights, and not a choice between old and new, whose channels may lie on devices differently.
    kept = jnp.where(real_count > 0, momentum, 1)
    taken = jnp.where(real_count > 0, 1 - momentum, 0)
    return kept * old + taken * batch
