"""NumPy float64 evaluation of a graph: the oracle of the tests, the fingerprint, the inertness check.

It is written from the formulas alone and shares no arithmetic with the JAX ops, so that their agreement is
evidence. Every node has the full shape of x, and no computation is shared, shifted or fused.
"""

import math
from collections.abc import Mapping

import numpy as np

from evonorms_jax.errors import UserError
from evonorms_jax.search_space.graph import Graph
from evonorms_jax.search_space.moments import index_set_named
from evonorms_jax.search_space.primitives import EPSILON, LEAVES, OPS


def evaluate_reference(
    graph: Graph,
    x: np.ndarray,
    v0: np.ndarray | float = 0.0,
    v1: np.ndarray | float = 1.0,
    groups: int = 32,
    *,
    epsilon: float = EPSILON,
    mask: np.ndarray | None = None,
    batch_moments: Mapping[int, np.ndarray] | None = None,
) -> np.ndarray:
    """The output of the graph, without the affine outside it.

    Args:
      graph: the candidate.
      x: input `[B, *S, C]` of any dtype, computed in float64.
      v0: trainable leaf that starts at 0, `[C]` or a scalar.
      v1: trainable leaf that starts at 1, `[C]` or a scalar.
      groups: number of channel groups. The largest divisor of C that is not above it is used.
      epsilon: guard of div, log and the second-order moments.
      mask: bool `[B, *S]`, True where a position is real. Moments ignore the rest.
      batch_moments: raw moments `[C]` (mean, mean square or biased variance) by node index. In inference they
        replace the batch's own moments at the batch aggregations.

    Returns:
      float64 `[B, *S, C]`. It may hold inf or NaN, without a warning.

    Raises:
      ValueError: if `groups` is below 1.
    """
    return _evaluate(graph, x, v0, v1, groups, epsilon, mask, batch_moments or {})[0]


def reference_batch_moments(
    graph: Graph,
    x: np.ndarray,
    v0: np.ndarray | float = 0.0,
    v1: np.ndarray | float = 1.0,
    groups: int = 32,
    *,
    epsilon: float = EPSILON,
    mask: np.ndarray | None = None,
) -> dict[int, np.ndarray]:
    """Raw moments `[C]` of the live batch aggregations by node index, which inference remembers."""
    moments = _evaluate(graph, x, v0, v1, groups, epsilon, mask, {})[1]
    return {index: raw.reshape(-1, raw.shape[-1])[0] for index, raw in moments.items()}


def _evaluate(graph, x, v0, v1, groups, epsilon, mask, batch_moments):
    """The output, and the raw moments of the live batch aggregations by node index."""
    if groups < 1:
        raise UserError(f"groups must be at least 1, got {groups}")
    x = np.asarray(x, np.float64)
    if mask is not None:
        mask = np.broadcast_to(mask, x.shape[:-1])[..., None]
        x = np.where(mask, x, 0)
    full = [x, np.zeros_like(x), *(np.broadcast_to(np.asarray(v, np.float64), x.shape) for v in (v0, v1))]
    values, moments = dict(enumerate(full)), {}
    with np.errstate(all="ignore"):
        for index in graph.live_nodes:
            if index < len(LEAVES):
                continue
            op, inputs = graph.nodes[index - len(LEAVES)]
            arguments = [values[i] for i in inputs]
            if OPS[op].kind is None:
                values[index] = elementwise(op, *arguments, epsilon=epsilon)
                continue
            raw = batch_moments.get(index)
            if raw is None:
                raw = raw_moment(op, *arguments, groups, mask)
            if OPS[op].batch_dependent:
                moments[index] = raw
            values[index] = np.broadcast_to(of_raw_moment(op, raw, epsilon=epsilon), x.shape)
    return values[len(LEAVES) + len(graph.nodes) - 1], moments


def elementwise(op: str, *arguments: np.ndarray, epsilon: float = EPSILON) -> np.ndarray:
    """The value of an element-wise op of float64 arrays that broadcast. Invalid values give no exception."""
    return _ELEMENTWISE[op](*arguments, epsilon)


def of_raw_moment(op: str, raw: np.ndarray, *, epsilon: float = EPSILON) -> np.ndarray:
    """The value of an aggregation from its mean, mean square or variance."""
    return raw if OPS[op].kind == "mean" else np.sqrt(raw + epsilon)


def raw_moment(op: str, x: np.ndarray, groups: int, mask: np.ndarray | None = None) -> np.ndarray:
    """Mean, mean square or biased variance of an aggregation, broadcast to the shape of x `[B, *S, C]`."""
    batch, channels = x.shape[0], x.shape[-1]
    size = channels // max(g for g in range(1, min(groups, channels) + 1) if channels % g == 0)
    weights = np.broadcast_to(1.0 if mask is None else mask.astype(np.float64), x.shape)
    # [B, positions, groups, channels of a group]; an index set is a choice of these axes.
    kind, wanted = OPS[op].kind, index_set_named(OPS[op].index_set)
    width = {"one": 1, "group": size, "all": channels}[wanted.channels]
    split = (batch, math.prod(x.shape[1:-1]), channels // width, width)
    values, weights = x.reshape(split), weights.reshape(split)
    axes = (0,) * wanted.batch + (1,) * wanted.space + (3,)
    count = np.maximum(weights.sum(axes, keepdims=True), 1e-300)

    def average(v):
        return np.where(weights > 0, v, 0).sum(axes, keepdims=True) / count

    if kind == "mean":
        moment = average(values)
    elif kind == "rms":
        moment = average(values**2)
    else:
        moment = average((values - average(values)) ** 2)
    return np.broadcast_to(moment, values.shape).reshape(x.shape)


def _div(x, y, epsilon):
    guarded = np.where(np.abs(y) < epsilon, np.where(y < 0, -epsilon, epsilon), y)
    return x / guarded


_erf = np.vectorize(math.erf, otypes=[np.float64])

_ELEMENTWISE = {
    "add": lambda x, y, epsilon: x + y,
    "mul": lambda x, y, epsilon: x * y,
    "div": _div,
    "max": lambda x, y, epsilon: np.maximum(x, y),
    "neg": lambda x, epsilon: -x,
    "sigmoid": lambda x, epsilon: 0.5 * (1 + np.tanh(0.5 * x)),
    "tanh": lambda x, epsilon: np.tanh(x),
    "exp": lambda x, epsilon: np.exp(x),
    "abs": lambda x, epsilon: np.abs(x),
    "square": lambda x, epsilon: x * x,
    "log": lambda x, epsilon: np.sign(x) * np.log(np.maximum(np.abs(x), epsilon)),
    "sqrt": lambda x, epsilon: np.sign(x) * np.sqrt(np.abs(x)),
    "erf": lambda x, epsilon: _erf(x),
}
