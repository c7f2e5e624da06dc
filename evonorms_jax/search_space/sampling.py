"""Random graphs and mutations: the two moves of the search.

Source: arXiv 2004.02967, sections 3.1 and 3.4; how ties and repeats are drawn is our choice.
"""

from collections.abc import Sequence

import numpy as np

from evonorms_jax.errors import UserError
from evonorms_jax.search_space.graph import Graph, Node, check_op
from evonorms_jax.search_space.primitives import LEAVES, OP_NAMES, OPS

NUM_NODES = 10


def random_graph(
    rng: np.random.Generator, num_nodes: int = NUM_NODES, ops: Sequence[str] = OP_NAMES
) -> Graph:
    """Draws every node in order: its op uniformly, its inputs uniformly from the earlier nodes.

    Args:
      rng: advanced by the draws.
      num_nodes: number of intermediate nodes.
      ops: names of the ops allowed.

    Raises:
      ValueError: if `num_nodes` is below 1, or `ops` is empty or names an unknown op.
    """
    _check_ops(ops)
    first = len(LEAVES)
    return Graph(tuple(_random_node(rng, first + i, ops) for i in range(num_nodes)))


def mutate(rng: np.random.Generator, graph: Graph, ops: Sequence[str] = OP_NAMES) -> Graph:
    """Draws one intermediate node anew, chosen uniformly, dead or alive; its users stay.

    The new op is uniform over `ops`, the new inputs uniform over the earlier nodes; both may come out as
    they were, so that a mutation can change nothing.

    Raises:
      ValueError: if `ops` is empty or names an unknown op.
    """
    _check_ops(ops)
    chosen = int(rng.integers(len(graph.nodes)))
    nodes = list(graph.nodes)
    nodes[chosen] = _random_node(rng, len(LEAVES) + chosen, ops)
    return Graph(tuple(nodes))


def _check_ops(ops: Sequence[str]) -> None:
    if not ops:
        raise UserError(f"ops must name at least one op, got {ops!r}")
    for op in ops:
        check_op(op, "ops")


def _random_node(rng: np.random.Generator, index: int, ops: Sequence[str]) -> Node:
    op = ops[int(rng.integers(len(ops)))]
    return Node(op, tuple(int(i) for i in rng.integers(index, size=OPS[op].arity)))
