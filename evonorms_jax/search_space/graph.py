"""The genotype: an immutable graph of ops over the leaves x, 0, v0, v1.

Source: arXiv 2004.02967, section 3.1. Nodes 0 to 3 are the leaves (`primitives.LEAVES`). The intermediate
nodes follow, and the last one is the output. Nodes that do not reach the output are dead. They are not
computed but stay in the genotype, where a mutation can revive them.
"""

import difflib
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from evonorms_jax.errors import UserError
from evonorms_jax.search_space import text
from evonorms_jax.search_space.primitives import INPUT, LEAVES, OPS

#: Version of the JSON form. Files of a newer schema are refused.
SCHEMA = 1


class Node(NamedTuple):
    """An op and the indices of its inputs, one or two by the op's arity."""

    op: str
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A candidate layer: frozen, hashable, checked when made.

    Attributes:
      nodes: intermediate nodes in order, as `Node`s or (op, inputs) pairs. Node `i` of the tuple has the
        index `4 + i` and may use only lower indices.

    Raises:
      ValueError: if there is no node, an op is unknown, the number of inputs is not the op's arity, or an
        input is not an earlier node.
    """

    nodes: tuple[Node, ...]

    def __post_init__(self):
        nodes = tuple(Node(op, tuple(inputs)) for op, inputs in self.nodes)
        if not nodes:
            raise UserError("a graph needs at least one intermediate node, got none")
        for index, node in enumerate(nodes, start=len(LEAVES)):
            _check_node(index, node)
        object.__setattr__(self, "nodes", nodes)

    def __str__(self) -> str:
        """Equation of the live part, e.g. `x / max(std_bwh(x), v1 * x + std_wh(x))`."""
        return text.equation(self.nodes)

    def latex(self) -> str:
        """Equation of the live part in LaTeX, without dollar signs."""
        return text.latex(self.nodes)

    @classmethod
    def parse(cls, equation: str, num_nodes: int | None = 10) -> "Graph":
        """The graph of an equation as `str(graph)` prints it.

        Repeated sub-expressions become one node. `1` means `exp(0)`, and `a - b` means `a + (-b)`.

        Args:
          equation: text of the equation.
          num_nodes: least number of nodes. Dead nodes (`x + 0`) in front fill the graph up to it, so that it
            can seed a search. With None the graph has its live nodes alone.

        Raises:
          ValueError: if the text is not an equation over the leaves and ops.
        """
        nodes = text.parse(equation)
        dead = [("add", (0, 1))] * max(0, (num_nodes or 0) - len(nodes))
        shifted = [(op, [i + len(dead) if i >= len(LEAVES) else i for i in ins]) for op, ins in nodes]
        return cls((*dead, *shifted))

    @functools.cached_property
    def live_nodes(self) -> tuple[int, ...]:
        """Indices of all nodes that reach the output, leaves and the output included, ascending."""
        live = {len(LEAVES) + len(self.nodes) - 1}
        for index in range(len(LEAVES) + len(self.nodes) - 1, len(LEAVES) - 1, -1):
            if index in live:
                live.update(self.nodes[index - len(LEAVES)].inputs)
        return tuple(sorted(live))

    @property
    def uses_input(self) -> bool:
        """Whether x reaches the output."""
        return INPUT in self.live_nodes

    @property
    def batch_dependent(self) -> bool:
        """Whether an aggregation over the batch reaches the output."""
        return any(OPS[op].batch_dependent for op, _ in self.canonical.nodes)

    @functools.cached_property
    def canonical(self) -> "Graph":
        """The live part alone, equal sub-expressions merged, commutative inputs and nodes in a fixed order.

        Two graphs with the same canonical form compute the same function.
        """
        digests: list[bytes] = [name.encode() for name in LEAVES]
        for op, inputs in self.nodes:
            keys = [digests[i] for i in inputs]
            keys = sorted(keys) if OPS[op].commutative else keys
            digests.append(hashlib.sha256(b"|".join([op.encode(), *keys])).digest())
        nodes: list[Node] = []
        placed = {digest: index for index, digest in enumerate(digests[: len(LEAVES)])}

        for index in self._post_order(digests):
            if digests[index] in placed:
                continue
            op, inputs = self.nodes[index - len(LEAVES)]
            places = [placed[digests[i]] for i in inputs]
            nodes.append(Node(op, tuple(sorted(places) if OPS[op].commutative else places)))
            placed[digests[index]] = len(LEAVES) + len(nodes) - 1
        return Graph(tuple(nodes))

    def _post_order(self, digests: list[bytes]) -> list[int]:
        """Live intermediate nodes, inputs before users, in an order that depends on the digests alone."""
        order: list[int] = []
        seen: set[bytes] = set()
        stack = [(len(digests) - 1, False)]
        while stack:
            index, expanded = stack.pop()
            if expanded:
                order.append(index)
            elif index >= len(LEAVES) and digests[index] not in seen:
                seen.add(digests[index])
                inputs = self.nodes[index - len(LEAVES)].inputs
                if OPS[self.nodes[index - len(LEAVES)].op].commutative:
                    inputs = sorted(inputs, key=lambda i: digests[i])
                stack.append((index, True))
                stack.extend((i, False) for i in reversed(inputs))
        return order

    def to_json(self) -> dict[str, Any]:
        """A JSON object of schema version and nodes, which `Graph.from_json` reads back to an equal graph."""
        return {"schema": SCHEMA, "nodes": [[op, list(inputs)] for op, inputs in self.nodes]}

    @classmethod
    def from_json(cls, data: Any) -> "Graph":
        """The graph of an object from `to_json`.

        Raises:
          ValueError: if the data is not a graph, or of a newer schema, or the graph is not valid.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("nodes"), list):
            raise UserError(f"not a graph: expected an object with 'nodes', got {str(data)[:60]!r}")
        check_schema(data.get("schema"), "graph")
        try:
            nodes = tuple((op, tuple(inputs)) for op, inputs in data["nodes"])
        except (TypeError, ValueError):
            raise UserError(f"not a graph: each node is [op, inputs], got {data['nodes']}") from None
        return cls(nodes)


def check_schema(schema: Any, what: str) -> None:
    """Raises ValueError unless `schema` is a version that this package reads."""
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise UserError(f"the {what} names no schema version: expected 'schema': {SCHEMA}, got {schema!r}")
    if schema > SCHEMA:
        raise UserError(
            f"the {what} has schema {schema}, this version reads up to {SCHEMA}: update evonorms-jax"
        )


def check_op(op: Any, where: str) -> None:
    """Raises ValueError, with the nearest right name, unless `op` names an op."""
    if not isinstance(op, str) or op not in OPS:
        near = difflib.get_close_matches(str(op), OPS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known ops: {', '.join(OPS)}"
        raise UserError(f"{where}: unknown op {op!r}; {hint}")


def _check_node(index: int, node: Node) -> None:
    op, inputs = node
    check_op(op, f"node {index}")
    if len(inputs) != OPS[op].arity:
        raise UserError(f"node {index}: {op} takes {OPS[op].arity} input(s), got {list(inputs)}")
    for i in inputs:
        if not isinstance(i, int) or isinstance(i, bool) or not 0 <= i < index:
            raise UserError(f"node {index}: an input must be one of 0 to {index - 1}, got {i!r}")
