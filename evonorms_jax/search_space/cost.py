"""The cost of a layer, counted from its graph: passes over x, bytes, statistics, state, parameters.

A layer is bound by memory traffic, so the passes over tensors of the size of x count, as XLA schedules them.
A round of moments reads x once: all moments that need no other moment first share it, whatever their index
sets. Element-wise work between two passes is fused into them, and moments of small arrays are free. The
moments of one position, a C-th of x, count as small. `std_c` reads x twice, first for the mean.

    forward:   D reads for D rounds of moments, then 1 read of x and 1 write of y
    backward:  2 reads (x and dy) a round, then 2 reads and 1 write of dx
    inference: as forward, but moments of the batch are known

BN-ReLU, EvoNorm-B0, S0 and RMSNorm have D = 1 and 8 passes, LayerNorm over channels 9, a pointwise layer 5.
XLA may recompute a moment, or keep a tensor of its own, so this is a count and not a measurement. The affine
map after the layer is included.
"""

import functools
from typing import Any, NamedTuple

from evonorms_jax.search_space import moments
from evonorms_jax.search_space.graph import Graph
from evonorms_jax.search_space.primitives import INPUT, LEAVES, OPS, V0, V1, Op

_AFFINE = 2  # gamma and beta of each channel, which every layer has


class LayerCost(NamedTuple):
    """The cost of a layer.

    Attributes:
      forward: passes over tensors of the size of x in a training step, reads and writes.
      backward: the same in the backward pass.
      inference: the same at inference.
      statistics: distinct moments of tensors that vary over space.
      state: moving statistics, in numbers a channel.
      parameters: trainable numbers a channel, gamma and beta included.
      operations: element-wise ops on tensors of the size of x.
    """

    forward: int
    backward: int
    inference: int
    statistics: int
    state: int
    parameters: int
    operations: int

    @property
    def passes(self) -> int:
        """Passes of a training step."""
        return self.forward + self.backward

    def bytes(self, batch: int = 1, pixels: int = 1, channels: int = 1, itemsize: int = 4) -> int:
        """Bytes that a training step moves for x `[batch, pixels, channels]`, without the vectors.

        By default those of one number of x in float32.
        """
        return self.passes * batch * pixels * channels * itemsize

    def to_json(self) -> dict[str, Any]:
        """The numbers for files, with the passes of a training step and its bytes for a number of x."""
        return {"passes": self.passes, "bytes_per_element": self.bytes(), **self._asdict()}


class _Rounds(NamedTuple):
    """Rounds of moments before a value is known."""

    forward: int = 0
    backward: int = 0
    inference: int = 0


@functools.lru_cache(maxsize=2**15)
def layer_cost(graph: Graph) -> LayerCost:
    """The cost of the live part of a graph, in which equal sub-expressions are computed once."""
    nodes = graph.canonical.nodes
    full = [leaf == INPUT for leaf in range(len(LEAVES))]  # whether a value has the size of x
    rounds = [_Rounds()] * len(LEAVES)
    statistics = operations = state = 0
    for name, inputs in nodes:
        op, varies = OPS[name], any(full[i] for i in inputs)
        before = _Rounds(*map(max, zip(*(rounds[i] for i in inputs), strict=True)))
        if op.kind is not None:
            statistics += varies
            state += op.batch_dependent
            rounds.append(_after(before, op, varies))
            full.append(False)
        else:
            operations += varies
            rounds.append(before)
            full.append(varies)
    reads = 1 if full[-1] else 0  # a flat output is written without another look at x
    leaves = set(graph.live_nodes)
    return LayerCost(
        forward=rounds[-1].forward + reads + 1,
        backward=2 * rounds[-1].backward + 2 + 1,
        inference=rounds[-1].inference + reads + 1,
        statistics=statistics,
        state=state,
        parameters=_AFFINE + (V0 in leaves) + (V1 in leaves),
        operations=operations,
    )


def _after(before: _Rounds, op: Op, varies: bool) -> _Rounds:
    """The rounds after a moment of a tensor that has the size of x or not."""
    per_position = not moments.index_set_named(op.index_set).space
    reads = (2 if per_position and op.kind == "std" else 1) if varies else 0
    inference = 0 if op.batch_dependent else before.inference + reads
    return _Rounds(before.forward + reads, before.backward + varies, inference)
