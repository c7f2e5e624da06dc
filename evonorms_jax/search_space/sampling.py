"""Random graphs and mutations: the two moves of the search.

Source: arXiv 2004.02967, sections 3.1 and 3.4. The paper leaves open whether a draw may repeat an input or
the old node. Here it may. A new kind of mutation is one function `(rng, graph, ops) -> graph` and one entry
of `MUTATIONS`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evonorms_jax.errors import UserError
from evonorms_jax.search_space.graph import Graph, Node, check_op
from evonorms_jax.search_space.primitives import LEAVES, OP_NAMES, OPS

NUM_NODES = 10


def random_graph(
    rng: np.random.Generator, num_nodes: int = NUM_NODES, ops: Sequence[str] = OP_NAMES
) -> Graph:
    """Draws every node in order: its op uniformly, then its inputs uniformly from the earlier nodes.

    Advances `rng`. Raises the `ValueError` of `check_space`.
    """
    check_space(num_nodes, ops)
    first = len(LEAVES)
    return Graph(tuple(_random_node(rng, first + i, ops) for i in range(num_nodes)))


def mutate(rng: np.random.Generator, graph: Graph, ops: Sequence[str] = OP_NAMES) -> Graph:
    """Draws one intermediate node anew and keeps its users, which is the paper's mutation.

    The node is chosen uniformly, dead or alive. The new op is uniform over `ops`, the new inputs are uniform
    over the earlier nodes. The draw may repeat the old node, and then the graph is unchanged. The other nodes
    may hold ops that are not allowed. Advances `rng`. Raises the `ValueError` of `check_space`.
    """
    return _replace_node(rng, graph, ops, lambda index, node: _random_node(rng, index, ops))


def mutate_gene(rng: np.random.Generator, graph: Graph, ops: Sequence[str] = OP_NAMES) -> Graph:
    """Draws the op or one input of one intermediate node anew, and keeps the rest of the node.

    So `x / std_wh(x)` becomes `abs(x) / std_wh(x)` by one draw where a dead node is `abs(x)`. The paper's
    mutation has to draw the division and the other input again at the same time. The node is chosen
    uniformly, dead or alive, then the op or an input of it. A new op keeps the inputs that it has places for,
    and further ones are uniform over the earlier nodes. Otherwise as `mutate`.

    Source: the point mutation of Cartesian genetic programming (Miller and Thomson, 2000). It is beyond the
    paper.
    """

    def changed(index, node):
        gene = int(rng.integers(1 + len(node.inputs)))
        if gene:
            inputs = list(node.inputs)
            inputs[gene - 1] = int(rng.integers(index))
            return Node(node.op, tuple(inputs))
        op = ops[int(rng.integers(len(ops)))]
        kept = node.inputs[: OPS[op].arity]
        further = rng.integers(index, size=OPS[op].arity - len(kept))
        return Node(op, (*kept, *further.tolist()))

    return _replace_node(rng, graph, ops, changed)


#: The mutations by the name in `config.evolution.mutation`.
MUTATIONS: dict[str, Callable[..., Graph]] = {"node": mutate, "gene": mutate_gene}


def check_space(num_nodes: Any, ops: Any) -> None:
    """Checks the number of intermediate nodes and the names of the allowed ops of a search space.

    Raises `ValueError` unless `num_nodes` is a whole number from 1 on, and `ops` names at least one op and
    each op once.
    """
    if not isinstance(num_nodes, int | np.integer) or isinstance(num_nodes, bool) or num_nodes < 1:
        raise UserError(f"num_nodes must be a whole number from 1 on, got {num_nodes!r}")
    if isinstance(ops, str) or not ops:
        raise UserError(f"ops must name at least one op, as a tuple of names, got {ops!r}")
    for op in ops:
        check_op(op, "ops")
    if len(set(ops)) < len(ops):
        twice = next(op for number, op in enumerate(ops) if op in ops[:number])
        raise UserError(f"ops must name each op once, got {twice!r} twice")


def _replace_node(
    rng: np.random.Generator, graph: Graph, ops: Sequence[str], changed: Callable[[int, Node], Node]
) -> Graph:
    """The graph with `changed(index, node)` in the place of one intermediate node, chosen uniformly."""
    check_space(len(graph.nodes), ops)
    chosen = int(rng.integers(len(graph.nodes)))
    nodes = list(graph.nodes)
    nodes[chosen] = changed(len(LEAVES) + chosen, nodes[chosen])
    return Graph(tuple(nodes))


def _random_node(rng: np.random.Generator, index: int, ops: Sequence[str]) -> Node:
    op = ops[int(rng.integers(len(ops)))]
    return Node(op, tuple(int(i) for i in rng.integers(index, size=OPS[op].arity)))
