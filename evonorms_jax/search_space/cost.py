"""The cost of a layer in training, counted from its graph: passes over x, statistics, state, parameters.

A layer is bound by memory traffic, so the passes over tensors of the size of x count, as XLA schedules them.
A round of moments reads x once: all moments that need no other moment first share it, whatever their index
sets. Element-wise work between two passes is fused into them, and moments of small arrays are free.

    forward:  D reads for D rounds of moments, then 1 read of x and 1 write of y
    backward: 2 reads (x and dy) a round, then 2 reads and 1 write of dx

BN-ReLU, EvoNorm-B0 and S0 have D = 1 and 8 passes, a pointwise layer 5. XLA may recompute a moment, or keep a
tensor of its own, so this is a count and not a measurement. The affine map after the layer is included.
"""

from typing import NamedTuple

from evonorms_jax.search_space.graph import Graph
from evonorms_jax.search_space.primitives import INPUT, LEAVES, OPS, V0, V1

_AFFINE = 2  # gamma and beta of each channel, which every layer has


class LayerCost(NamedTuple):
    """The cost of a training step of a layer.

    Attributes:
      forward: passes over tensors of the size of x, reads and writes.
      backward: the same in the backward pass.
      statistics: distinct moments of tensors that vary over space.
      state: moving statistics, in numbers a channel.
      parameters: trainable numbers a channel, gamma and beta included.
      operations: element-wise ops on tensors of the size of x.
    """

    forward: int
    backward: int
    statistics: int
    state: int
    parameters: int
    operations: int

    @property
    def passes(self) -> int:
        """Passes of a training step."""
        return self.forward + self.backward

    def bytes(self, batch: int, pixels: int, channels: int, itemsize: int = 4) -> int:
        """Bytes that a training step moves for x `[batch, pixels, channels]`, without the vectors."""
        return self.passes * batch * pixels * channels * itemsize


def layer_cost(graph: Graph) -> LayerCost:
    """The cost of the live part of a graph, in which equal sub-expressions are computed once."""
    nodes = graph.canonical.nodes
    full = [leaf == INPUT for leaf in range(len(LEAVES))]  # whether a value varies over space
    rounds = [0] * len(LEAVES)  # rounds of moments before a value is known
    statistics = operations = state = 0
    for op, inputs in nodes:
        before, varies = max(rounds[i] for i in inputs), any(full[i] for i in inputs)
        if OPS[op].kind is not None:
            statistics += varies
            state += OPS[op].batch_dependent
            rounds.append(before + varies)
            full.append(False)
        else:
            operations += varies
            rounds.append(before)
            full.append(varies)
    reads = 1 if full[-1] else 0  # a flat output is written without another look at x
    leaves = set(graph.live_nodes)
    return LayerCost(
        forward=rounds[-1] + reads + 1,
        backward=2 * rounds[-1] + 2 + 1,
        statistics=statistics,
        state=state,
        parameters=_AFFINE + (V0 in leaves) + (V1 in leaves),
        operations=operations,
    )
