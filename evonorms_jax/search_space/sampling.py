"""Random graphs and mutations: the two moves of the search.

Source: arXiv 2004.02967, sections 3.1 and 3.4. The paper leaves open whether a draw may repeat an input or
the old node. Here it may.
"""

from collections.abc import Sequence
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
    """Draws one intermediate node anew and keeps its users.

    The node is chosen uniformly, dead or alive. The new op is uniform over `ops`, the new inputs are uniform
    over the earlier nodes. The draw may repeat the old node, and then the graph is unchanged. The other nodes
    may hold ops that are not allowed. Advances `rng`. Raises the `ValueError` of `check_space`.
    """
    check_space(len(graph.nodes), ops)
    chosen = int(rng.integers(len(graph.nodes)))
    nodes = list(graph.nodes)
    nodes[chosen] = _random_node(rng, len(LEAVES) + chosen, ops)
    return Graph(tuple(nodes))


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


def _random_node(rng: np.random.Generator, index: int, ops: Sequence[str]) -> Node:
    op = ops[int(rng.integers(len(ops)))]
    return Node(op, tuple(int(i) for i in rng.integers(index, size=OPS[op].arity)))
