"""A graph as a handful of integers: the two tapes that the universal layer runs, forward and backward."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evonorms_jax.errors import UserError
from evonorms_jax.search_space import moments
from evonorms_jax.search_space.graph import Graph, Node
from evonorms_jax.search_space.primitives import INPUT, LEAVES, OPS, V0, V1, ZERO

#: Intermediate nodes that an encoded graph holds.
CAPACITY = 10
#: Activations of the buffer that runs an encoded graph: leaves, nodes, and two that are free at the start.
SLOTS = len(LEAVES) + CAPACITY + 2

AGGREGATIONS = ["mean", "rms", "std"]
#: An instruction is an element-wise op or a kind of aggregation. The index set is a field of its own.
INSTRUCTIONS = [op.name for op in OPS.values() if op.kind is None] + AGGREGATIONS
#: An edge of the backward tape is an instruction and the number of the input that the cotangent goes to.
EDGES = [(name, k) for name in INSTRUCTIONS for k in range(OPS[name].arity if name in OPS else 1)]


class EncodedGraph(NamedTuple):
    """The live part of a graph as a pytree of int32 arrays. Equal sub-expressions are merged."""

    code: np.ndarray  # [CAPACITY] instruction of each node
    inputs: np.ndarray  # [CAPACITY, 2] slots of its inputs; the second repeats the first for unary ops
    index_set: np.ndarray  # [CAPACITY] position of an aggregation's index set in `moments.INDEX_SETS`
    length: np.ndarray  # scalar, number of nodes
    # [2 * CAPACITY, 5] backward tape: edge code, number of the node, slots of the cotangents of the node and
    # of its target, whether it is the first edge to that target.
    edges: np.ndarray
    num_edges: np.ndarray  # scalar
    received: np.ndarray  # [3] slots of the final cotangents of x, v0 and v1, -1 if no edge sends one
    statistic_start: np.ndarray  # [CAPACITY] start of the moving statistic, 0 for a mean and 1 otherwise


def encode(graph: Graph) -> EncodedGraph:
    """The encoded graph of a graph. Raises `ValueError` if more than `CAPACITY` nodes are live."""
    nodes = graph.canonical.nodes
    if len(nodes) > CAPACITY:
        raise UserError(f"the universal layer holds {CAPACITY} live nodes, the graph has {len(nodes)}")
    code, index_set, start = (np.zeros(CAPACITY, np.int32) for _ in range(3))
    inputs = np.zeros((CAPACITY, 2), np.int32)
    for number, (name, sources) in enumerate(nodes):
        op = OPS[name]
        code[number] = INSTRUCTIONS.index(op.kind or name)
        inputs[number] = sources if len(sources) == 2 else (*sources, *sources)
        index_set[number] = _number(op.index_set) if op.kind else 0
        start[number] = op.kind != "mean"
    tape, slots = _backward_tape(nodes)
    edges = np.zeros((2 * CAPACITY, 5), np.int32)
    edges[: len(tape)] = np.asarray(tape, np.int32).reshape(-1, 5)
    received = np.asarray([slots.get(leaf, -1) for leaf in (INPUT, V0, V1)], np.int32)
    return EncodedGraph(
        code, inputs, index_set, np.int32(len(nodes)), edges, np.int32(len(tape)), received, start
    )


def _number(index_set: str) -> int:
    moments.index_set_named(index_set)
    return list(moments.INDEX_SETS).index(index_set)


def _backward_tape(nodes: Sequence[Node]) -> tuple[list[tuple[int, ...]], dict[int, int]]:
    """The edges of `EncodedGraph.edges`, and the slots of the cotangents that are left at the end, by leaf.

    The cotangent that a node sends to an input depends on the values of its inputs and not on its own value.
    Only its consumers need that value, and they come first on this tape. So the slot of a node's value is
    free at the node's turn, and the slot of its cotangent after it. A node frees two slots and takes at most
    two, one of them before its second is free. One spare slot is enough, and one more for the cotangent of
    the output.
    """
    varies = [leaf != ZERO for leaf in range(len(LEAVES))]  # whether a gradient flows there
    for _, sources in nodes:
        varies.append(any(varies[i] for i in sources))
    free, tape = [SLOTS - 2], []
    slots = {len(LEAVES) - 1 + len(nodes): SLOTS - 1}
    for number in reversed(range(len(nodes))):
        node, (name, sources) = len(LEAVES) + number, nodes[number]
        if node not in slots:
            continue
        own = slots.pop(node)
        free.append(node)
        for k, target in enumerate(sources):
            if varies[target]:
                first = target not in slots
                slots[target] = free.pop() if first else slots[target]
                tape.append((EDGES.index((OPS[name].kind or name, k)), number, own, slots[target], first))
        free.append(own)
    return tape, slots
