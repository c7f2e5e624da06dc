"""Equations for people: the shortest spelling of a layer that its own parts offer.

Identities are found and not listed. Every node has its values on small probes, in training and at inference,
at random v0 and v1. A node is replaced by the smallest expression with the same values that can be made of
the parts below it: a part itself, as in `mean_wh(v0) = v0`, `-(-x) = x`, `tanh(0) = 0`, or one op of such
parts, as in `std_wh(x + v0) = std_wh(x)`, `x * x = square(x)`. So a new op needs no new rule. At the end,
`probes.same_function` compares the whole layer with its spelling on other probes, and a layer that fails
keeps its own.

`std_wh(0)` spells the constant sqrt(epsilon), the deviation of anything that does not vary.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from evonorms_jax.search_space.graph import Graph, Node
from evonorms_jax.search_space.primitives import INPUT, LEAVES, OP_NAMES, OPS, ZERO
from evonorms_jax.search_space.probes import GROUPS, make_probes, same_function
from evonorms_jax.search_space.reference import elementwise, of_raw_moment, raw_moment

# Pairs of probes. Their scales differ, since one side of a `max` of moments may win on all of one scale.
_PAIRS = tuple(
    make_probes(seed, scales=(scale, scale), leaf_scale=leaf_scale, shape=(2, 2, 1, 8))
    for seed, (scale, leaf_scale) in enumerate([(1, 1), (1, 1), (0.01, 1), (30, 1), (1, 0.01), (1, 30)], 1)
)
_RELATIVE, _ABSOLUTE = 1e-9, 1e-12  # tolerances of equal values
_FEW = np.random.default_rng(20200406).integers(
    len(_PAIRS) * 96, size=10
)  # elements of values to look at first
_MINUS = 0.5  # size of a negation, which is often printed as the sign of a difference


class _Term(NamedTuple):
    """An expression.

    Attributes:
      op: name of an op, or of a leaf.
      inputs: inputs of the op.
      values: values on P pairs of probes: in training on both, and at inference on the second, where batch
        moments are averages over the pair; float64 `[P, 3, B, H, W, C]`.
      size: number of printed symbols.
      pixels: whether pixels of x reach it other than through a moment.
    """

    op: str
    inputs: tuple["_Term", ...]
    values: np.ndarray
    size: float
    pixels: bool

    def parts(self) -> Iterator["_Term"]:
        """The term and all terms below it, each at least once."""
        yield self
        for term in self.inputs:
            yield from term.parts()


@functools.lru_cache(maxsize=4096)
def simplify(graph: Graph) -> Graph:
    """A graph without dead nodes that computes the same function and has a shorter equation if one is found.

    The smallest number of printed symbols counts. Commutative inputs are put in the order that people use:
    `v1 * x + v0`, `max(x, 0)`.
    """
    canonical = graph.canonical
    terms = list(_leaves())
    for op, inputs in canonical.nodes:
        terms.append(_shortest(op, [terms[i] for i in inputs]))
    made = _graph(terms[-1])
    return made if same_function(canonical, made) else canonical


def readable(graph: Graph) -> str:
    """The simplified equation as text, which `Graph.parse` reads back."""
    nodes = simplify(graph).nodes
    if len(nodes) == 1 and nodes[0].op == "add" and nodes[0].inputs[1] == ZERO:
        return LEAVES[nodes[0].inputs[0]]  # a leaf alone, which a graph needs a node for
    return str(simplify(graph))


# -- Terms


@functools.cache
def _leaves() -> tuple[_Term, ...]:
    made = []
    for number, name in enumerate(LEAVES):
        values = [
            np.broadcast_to((probe.x, np.zeros(1), probe.v0, probe.v1)[number], probe.x.shape)
            for first, second in _PAIRS
            for probe in (first, second, second)
        ]
        values = np.reshape(values, (len(_PAIRS), 3, *values[0].shape))
        made.append(_Term(name, (), values, 1.0, number == INPUT))
    return tuple(made)


@functools.cache
def _constants() -> tuple[_Term, ...]:
    """0, 1 and sqrt(epsilon)."""
    zero = _leaves()[ZERO]
    # Any other deviation of a constant has the size 2, so that this one is preferred.
    return zero, _term("exp", [zero])._replace(size=1.0), _term("std_wh", [zero])._replace(size=1.5)


def _term(op: str, inputs: Sequence[_Term]) -> _Term:
    values = [term.values for term in inputs]
    with np.errstate(all="ignore"):
        values = _moment(op, *values) if OPS[op].kind else elementwise(op, *values)
    return _Term(op, tuple(inputs), values, _size(op, inputs), _pixels(op, inputs))


def _size(op: str, inputs: Sequence[_Term]) -> float:
    return sum(term.size for term in inputs) + (_MINUS if op == "neg" else 1.0)


def _pixels(op: str, inputs: Sequence[_Term]) -> bool:
    return OPS[op].kind is None and any(term.pixels for term in inputs)


def _moment(op: str, values: np.ndarray) -> np.ndarray:
    """The moment of values as those of a term."""
    with np.errstate(all="ignore"):  # values may be infinite
        raw = np.array([[raw_moment(op, value, GROUPS) for value in pair] for pair in values])
    if OPS[op].batch_dependent:
        raw[:, 2] = raw[:, :2].mean(axis=1)
    return of_raw_moment(op, raw)


# -- The shortest spelling


def _shortest(op: str, inputs: Sequence[_Term]) -> _Term:
    """The smallest term with the values of an op of simplified terms."""
    term = _term(op, _in_order(op, inputs))
    parts = list({id(part): part for part in (*term.parts(), *_constants()) if part is not term}.values())
    parts.sort(key=lambda part: part.size)
    equal = (part for part in parts if part.size < term.size and _close(part.values, term.values).all())
    found = [term, *itertools.islice(equal, 1)]
    signed = parts + [_term("neg", [part]) for part in parts if part.op != "neg"]
    # Aggregations and ops beyond the paper appear only where the layer has them already.
    own = {part.op for part in term.parts() if part.op in OPS}
    for name in OPS:
        if name in own or (name in OP_NAMES and OPS[name].kind is None):
            choices = signed if OPS[name].arity == 2 else parts
            found.extend(_with_op(name, choices, term, below=min(other.size for other in found)))
    return min(found, key=lambda other: other.size)


def _with_op(op: str, parts: Sequence[_Term], term: _Term, below: float) -> Iterator[_Term]:
    """The smallest term of one op of these parts that equals `term`, if its size is below a bound."""
    if OPS[op].kind is None:
        # A few elements of the values rule out nearly all choices, for all of them at once.
        few = np.stack([part.values.ravel()[_FEW] for part in parts])
        grid = (few,) if OPS[op].arity == 1 else (few[:, None], few[None])
        with np.errstate(all="ignore"):
            equal = _close(elementwise(op, *grid), term.values.ravel()[_FEW]).all(axis=-1)
        choices = [[parts[place] for place in places] for places in np.argwhere(equal)]
    else:
        choices = [[part] for part in parts if _close(_moment(op, part.values[:1]), term.values[:1]).all()]
    for choice in sorted(choices, key=lambda inputs: _size(op, inputs)):
        if _size(op, choice) >= below:
            return
        made = _term(op, _in_order(op, choice))
        if _close(made.values, term.values).all():
            yield made
            return


def _close(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (np.abs(a - b) <= _RELATIVE * np.abs(b) + _ABSOLUTE) | (a == b) | (np.isnan(a) & np.isnan(b))


# -- Order and graph


def _in_order(op: str, inputs: Sequence[_Term]) -> list[_Term]:
    """Commutative inputs as people order them: pixels, then statistics, but factors like v1 before both.

    A negation comes last, so that a sum reads as a difference.
    """
    if not OPS[op].commutative:
        return list(inputs)

    def key(term):
        factor = op == "mul" and term.op in ("v0", "v1")
        varies = term.pixels, any(part.op == LEAVES[INPUT] for part in term.parts())
        return term.op == "neg", not factor, *(not each for each in varies), term.size, _spell(term)

    return sorted(inputs, key=key)


def _spell(term: _Term) -> str:
    """A text that tells terms apart."""
    return f"{term.op}({','.join(map(_spell, term.inputs))})" if term.inputs else term.op


def _graph(output: _Term) -> Graph:
    """The graph of a term, with equal terms as one node."""
    places = {name: index for index, name in enumerate(LEAVES)}
    nodes: list[Node] = []

    def place(term: _Term) -> int:
        inputs = tuple(map(place, term.inputs))
        key = _spell(term)
        if key not in places:
            nodes.append(Node(term.op, inputs))
            places[key] = len(LEAVES) + len(nodes) - 1
        return places[key]

    place(output)
    if not nodes:  # the output must be an intermediate node
        nodes.append(Node("add", (places[output.op], ZERO)))
    return Graph(tuple(nodes))
