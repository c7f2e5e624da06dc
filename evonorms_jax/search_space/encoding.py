"""A graph as a handful of integers: the two tapes that the universal layer runs, forward and backward."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from evonorms_jax.errors import UserError
from evonorms_jax.search_space import moments
from evonorms_jax.search_space.graph import Graph, Node, check_op
from evonorms_jax.search_space.primitives import INPUT, LEAVES, OP_NAMES, OPS, V0, V1, ZERO

#: Intermediate nodes that an encoded graph holds.
CAPACITY = 10
#: Activations of the buffer that runs an encoded graph: leaves, nodes, and two that are free at the start.
SLOTS = len(LEAVES) + CAPACITY + 2

AGGREGATIONS = ("mean", "rms", "std")


class InstructionSet(NamedTuple):
    """The ops that one universal program runs. The program has a branch for each, so it holds no others.

    Attributes:
      elementwise: names of the element-wise ops.
      index_sets: names of the index sets of the aggregations.
    """

    elementwise: tuple[str, ...]
    index_sets: tuple[str, ...]

    @property
    def instructions(self) -> tuple[str, ...]:
        """The element-wise ops and the kinds of aggregation. The index set is a field of its own."""
        return self.elementwise + AGGREGATIONS

    @property
    def edges(self) -> tuple[tuple[str, int], ...]:
        """Edges of the backward tape: an instruction, and the number of the input that gets the cotangent."""
        return tuple((name, k) for name in self.instructions for k in range(_arity(name)))


def _arity(instruction: str) -> int:
    return OPS[instruction].arity if instruction in OPS else 1


def instruction_set(ops: Iterable[str] = ()) -> InstructionSet:
    """The instructions of the paper's ops, and of further ops by name.

    The paper's are always there: every search trains baselines made of them. Raises `ValueError` if a name
    is unknown.
    """
    chosen = {*OP_NAMES, *ops}
    for name in chosen:
        check_op(name, "search_space.ops")
    elementwise = tuple(name for name, op in OPS.items() if op.kind is None and name in chosen)
    sets = {OPS[name].index_set for name in chosen}
    return InstructionSet(elementwise, tuple(name for name in moments.INDEX_SETS if name in sets))


#: The instructions of the paper's search space.
PAPER = instruction_set()


class EncodedGraph(NamedTuple):
    """The live part of a graph as a pytree of int32 arrays. Equal sub-expressions are merged."""

    code: np.ndarray  # [CAPACITY] instruction of each node
    inputs: np.ndarray  # [CAPACITY, 2] slots of its inputs; the second repeats the first for unary ops
    index_set: np.ndarray  # [CAPACITY] position of an aggregation's index set in the instruction set
    length: np.ndarray  # scalar, number of nodes
    # [2 * CAPACITY, 5] backward tape: edge code, number of the node, slots of the cotangents of the node and
    # of its target, whether it is the first edge to that target.
    edges: np.ndarray
    num_edges: np.ndarray  # scalar
    received: np.ndarray  # [3] slots of the final cotangents of x, v0 and v1, -1 if no edge sends one
    statistic_start: np.ndarray  # [CAPACITY] start of the moving statistic, 0 for a mean and 1 otherwise


def encode(graph: Graph, instructions: InstructionSet = PAPER) -> EncodedGraph:
    """The encoded graph of a graph, for the program of an instruction set.

    Raises:
      ValueError: if more than `CAPACITY` nodes are live, or an op is not in the instruction set.
    """
    nodes = graph.canonical.nodes
    if len(nodes) > CAPACITY:
        raise UserError(f"the universal layer holds {CAPACITY} live nodes, the graph has {len(nodes)}")
    code, index_set, start = (np.zeros(CAPACITY, np.int32) for _ in range(3))
    inputs = np.zeros((CAPACITY, 2), np.int32)
    for number, (name, sources) in enumerate(nodes):
        op = OPS[name]
        if not _runs(name, instructions):
            raise UserError(f"the universal program was built without {name}: search_space.ops must name it")
        code[number] = instructions.instructions.index(op.kind or name)
        inputs[number] = sources if len(sources) == 2 else (*sources, *sources)
        index_set[number] = instructions.index_sets.index(op.index_set) if op.kind else 0
        start[number] = op.kind != "mean"
    tape, slots = _backward_tape(nodes, instructions.edges)
    edges = np.zeros((2 * CAPACITY, 5), np.int32)
    edges[: len(tape)] = np.asarray(tape, np.int32).reshape(-1, 5)
    received = np.asarray([slots.get(leaf, -1) for leaf in (INPUT, V0, V1)], np.int32)
    return EncodedGraph(
        code, inputs, index_set, np.int32(len(nodes)), edges, np.int32(len(tape)), received, start
    )


def encodable(graph: Graph, instructions: InstructionSet) -> bool:
    """Whether the program of an instruction set runs all live ops of a graph."""
    return all(_runs(name, instructions) for name, _ in graph.canonical.nodes)


def _runs(name: str, instructions: InstructionSet) -> bool:
    op = OPS[name]
    if op.kind is None:
        return name in instructions.elementwise
    moments.index_set_named(op.index_set)
    return op.index_set in instructions.index_sets


def _backward_tape(
    nodes: Sequence[Node], edges: Sequence[tuple[str, int]]
) -> tuple[list[tuple[int, ...]], dict[int, int]]:
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
                tape.append((edges.index((OPS[name].kind or name, k)), number, own, slots[target], first))
        free.append(own)
    return tape, slots
