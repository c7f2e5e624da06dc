"""One program for every graph: the graph is data, and an interpreter on the device runs it.

Building a program takes seconds and screening a candidate takes less. Here a candidate is a handful of
integers, so one compiled model serves a whole search, and `jax.pmap` can give each device its own candidate.
Its branches are the ops of an `InstructionSet`, so ops that a search does not draw cost it nothing. The price
is a slower step: two to three times that of a compiled graph in a small network on a CPU.

Shapes: x `[B, *S, C]`. Node values live in one buffer `[slots, B, S, C]` with flattened space. Its slots are
the leaves x, 0, v0 and v1, the live nodes in order, and two free ones.

The interpreter has its own backward pass, because a loop with a data-dependent trip count has no reverse-mode
derivative. The backward pass walks a second tape whose entries are the edges of the graph. Each entry adds
the cotangent that one node sends to one of its inputs. Three choices serve speed:
- The backward pass keeps the buffer of the forward pass, 16 activations for each layer. Rebuilding it would
  make the program half as large again, to build and to run, and a proxy network is small.
- Cotangents are written into the slots of values that no later edge reads. Clearing a buffer of their own
  would be a large part of the cost of a layer.
- Dead nodes are not on the tapes.

On a TPU the program has a compact form with the same results. All element-wise instructions share one branch.
It computes each of them in one pass and selects: fewer kernels are built, and memory bounds the pass anyway.
The aggregations share another branch with one computation for all of them, forward and backward. The
backward pass rebuilds the buffer from x, v0 and v1, so that one buffer exists at a time instead of one for
each layer. The buffer is not cleared first. Equal kernels of all layers become one routine, see
`target.compiler_options`.

Second derivatives work forward over reverse (`jax.jvp` of `jax.grad`).

`vmap` over candidates would run every op for every node, so candidates run on several devices or in sequence.
`vmap` over replicas of one candidate has no such cost.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evonorms_jax.search_space import moments
from evonorms_jax.search_space.encoding import (
    AGGREGATIONS,
    CAPACITY,
    PAPER,
    SLOTS,
    EncodedGraph,
    InstructionSet,
)
from evonorms_jax.search_space.primitives import EPSILON, LEAVES, OPS
from evonorms_jax.search_space.target import platform


def initial_statistics(encoded: EncodedGraph, channels: int) -> jax.Array:
    """Moving statistics at the start, `[CAPACITY, C]`: 0 for means, 1 for mean squares and variances."""
    start = jnp.asarray(encoded.statistic_start, jnp.float32)[:, None]
    return jnp.broadcast_to(start, (CAPACITY, channels))


def apply_encoded(
    encoded: EncodedGraph,
    x: jax.Array,
    v0: jax.Array,
    v1: jax.Array,
    stats: jax.Array,
    *,
    train: bool,
    groups: int = 32,
    group_size: int | None = None,
    epsilon: float = EPSILON,
    momentum: float = 0.9,
    instructions: InstructionSet = PAPER,
) -> tuple[jax.Array, jax.Array]:
    """Evaluates an encoded graph. The results are those of `compile_graph` for the same graph.

    Args:
      encoded: candidate of this instruction set, traced or not.
      x: input `[B, *S, C]`.
      v0: trainable leaf `[C]`.
      v1: trainable leaf `[C]`.
      stats: raw moments `[CAPACITY, C]` by node. Only the rows of batch aggregations are used.
      train: whether batch aggregations use the batch's own moments, and stats advance.
      groups, group_size, epsilon, momentum: as of `compile_graph`.
      instructions: the ops that the program runs.

    Returns:
      y with the shape and dtype of x, and the statistics. Without an element in x they are unchanged.
    """
    groups = moments.resolve_groups(x.shape[-1], groups, group_size)
    if x.size == 0:
        return x, stats
    flat = x.astype(jnp.float32).reshape(x.shape[0], -1, x.shape[-1])
    interpreter = _Interpreter(groups, epsilon, train, platform() == "tpu", instructions)
    y, raw = _run(interpreter, encoded, flat, v0.astype(jnp.float32), v1.astype(jnp.float32), stats)
    if train:
        stats = momentum * stats + (1 - momentum) * jax.lax.stop_gradient(raw)
    return y.reshape(x.shape).astype(x.dtype), stats


class _Interpreter(NamedTuple):
    """The static settings, and one function for each instruction.

    A function maps `(a, b, index_set, stat)`, with a and b `[B, S, C]` and stat `[C]`, to a value `[B, S, C]`
    and a raw moment `[C]`. The moment matters only for an aggregation over the batch.
    """

    groups: int
    epsilon: float
    train: bool
    compact: bool
    instructions: InstructionSet

    @property
    def index_sets(self) -> list[moments.IndexSet]:
        """The index sets by their numbers."""
        return [moments.INDEX_SETS[name] for name in self.instructions.index_sets]

    def branches(self, entries: Sequence[Any], instruction: Callable[[Any], str]) -> list[tuple[Any, ...]]:
        """The instructions or edges that share a branch, in order: in the compact form two groups."""
        if not self.compact:
            return [(entry,) for entry in entries]
        groups = itertools.groupby(entries, lambda entry: instruction(entry) in OPS)
        return [tuple(group) for _, group in groups]

    def function(self, name: str):
        if name in OPS:
            op = OPS[name]

            def elementwise(a, b, index_set, stat):
                del index_set
                return op.function(*(a, b)[: op.arity], epsilon=self.epsilon), stat

            return elementwise
        return functools.partial(self.aggregate, name)

    def aggregate(self, kind: str, a, b, index_set, stat):
        del b
        raw = self.raw_moment(kind, a, index_set, stat)
        value = raw if kind == "mean" else jnp.sqrt(raw + self.epsilon)
        # Only the moment of a set over the batch is remembered, and it is the same at every position.
        return jnp.broadcast_to(value, a.shape), jnp.broadcast_to(raw, (*raw.shape[:2], a.shape[-1]))[0, 0]

    def aggregate_any(self, number, a, index_set, stat):
        """`aggregate` for the kind `AGGREGATIONS[number]`, which is data."""
        _, raw, value = self.center(number, a, index_set, stat)
        return jnp.broadcast_to(value, a.shape), jnp.broadcast_to(raw, (*raw.shape[:2], a.shape[-1]))[0, 0]

    def cotangent_of_any(self, number, a, index_set, stat, g):
        """The cotangent that an aggregation sends to its input: `c A(g / d)` with the average A.

        A is symmetric and A(A(x)) = A(x). So a mean sends A(g), a root mean square v sends x A(g / v), and a
        standard deviation v sends (x - A(x)) A(g / v).
        """
        centered, _, value = self.center(number, a, index_set, stat)
        is_mean = number == AGGREGATIONS.index("mean")
        sent = jnp.where(is_mean, 1, centered) * self.average(g / jnp.where(is_mean, 1, value), index_set)
        for position, entry in enumerate(self.index_sets):
            if entry.batch and not self.train:
                sent = jnp.where(index_set == position, 0, sent)
        return sent

    def center(self, number, a, index_set, stat):
        """a without its mean if the kind is std, else a. Also the raw moment and the value."""
        is_mean, is_std = (number == AGGREGATIONS.index(kind) for kind in ("mean", "std"))
        mean = self.average(a, index_set)
        centered = jnp.where(is_std, a - mean, a)
        raw = jnp.where(is_mean, mean, self.average(jnp.square(centered), index_set))
        raw = self.remembered(raw, index_set, stat)
        return centered, raw, jnp.where(is_mean, raw, jnp.sqrt(raw + self.epsilon))

    def raw_moment(self, kind: str, a, index_set, stat):
        """`[B, 1, C]`, or `[B, S, C]` if one of the index sets has no space."""
        if kind == "rms":
            raw = self.average(jnp.square(a), index_set)
        else:
            raw = mean = self.average(a, index_set)
            if kind == "std":
                raw = self.average(jnp.square(a - mean), index_set)
        return self.remembered(raw, index_set, stat)

    def remembered(self, raw, index_set, stat):
        """The moving statistic in the place of the moment over a batch, at inference."""
        for number, entry in enumerate(self.index_sets):
            if entry.batch and not self.train:
                raw = jnp.where(index_set == number, stat.reshape(1, 1, -1), raw)
        return raw

    def average(self, values, index_set):
        """The average of `[B, S, C]` over the index set, which is data.

        Every index set of the paper averages over space, so that is done once. The choice between the sets is
        then one between small arrays. With a set of single positions it is one between arrays of full size.
        """
        over_space = jnp.mean(values, 1, keepdims=True)
        chosen = over_space
        for number, entry in enumerate(self.index_sets):
            average = self.project(over_space if entry.space else values, entry)
            if average is not over_space:
                chosen = jnp.where(index_set == number, average, chosen)
        return chosen

    def project(self, values, entry: moments.IndexSet):
        """Averages over the batch and the channels of an index set. A group's average is repeated."""
        if entry.channels == "group":
            grouped = values.reshape(*values.shape[:2], self.groups, -1)
            of_group = jnp.broadcast_to(jnp.mean(grouped, -1, keepdims=True), grouped.shape)
            values = of_group.reshape(values.shape)
        elif entry.channels == "all":
            values = jnp.mean(values, -1, keepdims=True)
        return jnp.mean(values, 0, keepdims=True) if entry.batch else values


def _zeros(shape, like):
    """Zeros that XLA does not recognize as constant.

    XLA would make a constant buffer once, outside the training loop, and copy it in every step.
    """
    return jnp.full(shape, jnp.where(like[0, 0, 0] > jnp.inf, 1, 0).astype(like.dtype))


# Plain indexing checks the bounds, which costs a pass over the buffer. These functions do not.
def _slot(buffer, index):
    return jax.lax.dynamic_index_in_dim(buffer, index, 0, keepdims=False)


def _slots(buffer, indices):
    return [_slot(buffer, indices[k]) for k in range(2)]


def _put(buffer, value, index):
    return jax.lax.dynamic_update_index_in_dim(buffer, value, index, 0)


def _switch(groups, code, run, run_any, *operands):
    """`run(entry, *operands)` for the entry number `code` of all groups, each of which is a branch.

    A branch computes all of its entries and selects one result. A NaN of the others is dropped with them. The
    last branch is `run_any(number, *operands)` for the entry `number` of its group, if that has several.
    """
    starts = np.cumsum([0, *map(len, groups)])

    def branch(group, start):
        def of_group(*operands):
            if len(group) > 1 and group is groups[-1]:
                return run_any(code - start, *operands)
            results = [run(entry, *operands) for entry in group]
            if len(group) == 1:
                return results[0]
            return jax.tree.map(lambda *each: jax.lax.select_n(code - start, *each), *results)

        return of_group

    number = code
    if len(groups) < starts[-1]:
        number = sum((code >= start).astype(jnp.int32) for start in starts[1:-1])
    return jax.lax.switch(number, list(map(branch, groups, starts.tolist())), *operands)


# Jitted so that layers of the same shape are traced and lowered once.
@functools.partial(jax.jit, static_argnums=0)
def _values(
    interpreter: _Interpreter, encoded: EncodedGraph, x, v0, v1, stats
) -> tuple[jax.Array, jax.Array]:
    """Runs the forward tape: the buffer `[slots, B, S, C]` and the raw moments `[CAPACITY, C]`."""
    per_channel = (jnp.broadcast_to(v.reshape(1, 1, -1), x.shape) for v in (v0, v1))
    leaves = jnp.stack([x, jnp.zeros_like(x), *per_channel])
    if interpreter.compact:
        # Every other slot is written before it is read.
        empty = jax.lax.empty((SLOTS, *x.shape), x.dtype)
        buffer = jax.lax.dynamic_update_slice_in_dim(empty, leaves, 0, 0)
    else:
        buffer = jnp.concatenate([leaves, _zeros((SLOTS - len(LEAVES), *x.shape), x)])

    def run(name, buffer, inputs, index_set, stat):
        # The slices are inside the branch, where XLA fuses them with the op.
        return interpreter.function(name)(*_slots(buffer, inputs), index_set, stat)

    def run_any(number, buffer, inputs, index_set, stat):
        return interpreter.aggregate_any(number, _slot(buffer, inputs[0]), index_set, stat)

    groups = interpreter.branches(interpreter.instructions.instructions, lambda name: name)

    def step(number, carry):
        buffer, raw = carry
        # The branch of the instruction runs alone: `code` is a scalar, so XLA keeps the conditional.
        value, moment = _switch(
            groups,
            encoded.code[number],
            run,
            run_any,
            buffer,
            encoded.inputs[number],
            encoded.index_set[number],
            stats[number],
        )
        return _put(buffer, value, len(LEAVES) + number), _put(raw, moment, number)

    return jax.lax.fori_loop(0, encoded.length, step, (buffer, stats))


@functools.partial(jax.jit, static_argnums=0)
def _cotangents(interpreter: _Interpreter, encoded: EncodedGraph, buffer, stats, g) -> list[jax.Array]:
    """Walks the backward tape in the buffer of the forward pass: the cotangents of x, v0, v1, `[B, S, C]`."""

    def run(edge, buffer, inputs, index_set, stat, own):
        (name, k), operands = edge, _slots(buffer, inputs)

        # The other operand is held fixed, and JAX derives the rule of this edge from the op itself.
        def of_target(target):
            replaced = [*operands[:k], target, *operands[k + 1 :]]
            return interpreter.function(name)(*replaced, index_set, stat)[0]

        return jax.vjp(of_target, operands[k])[1](_slot(buffer, own))[0]

    def run_any(number, buffer, inputs, index_set, stat, own):
        a, g = _slot(buffer, inputs[0]), _slot(buffer, own)
        return interpreter.cotangent_of_any(number, a, index_set, stat, g)

    groups = interpreter.branches(interpreter.instructions.edges, lambda edge: edge[0])

    def step(entry, buffer):
        code, number, own, target, first = encoded.edges[entry]
        operands = encoded.inputs[number], encoded.index_set[number], stats[number], own
        sent = _switch(groups, code, run, run_any, buffer, *operands)
        # Until its first edge, a target's slot still holds a value of the forward pass.
        return _put(buffer, jnp.where(first, sent, _slot(buffer, target) + sent), target)

    buffer = jax.lax.fori_loop(0, encoded.num_edges, step, _put(buffer, g, SLOTS - 1))
    # A leaf that no edge reaches has the gradient 0, and its slot (-1) must not be read as the last one.
    return [jnp.where(encoded.received[k] < 0, 0, _slot(buffer, encoded.received[k])) for k in range(3)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(interpreter, encoded, x, v0, v1, stats):
    return _forward(interpreter, encoded, x, v0, v1, stats)[0]


def _forward(interpreter, encoded, x, v0, v1, stats):
    buffer, raw = _values(interpreter, encoded, x, v0, v1, stats)
    # The condition always holds for a graph with a node. Without it XLA fuses the slice into its consumers,
    # as far as the backward pass of the network, and the layer must then copy the buffer before it writes
    # there.
    output = len(LEAVES) - 1 + encoded.length
    y = jax.lax.cond(encoded.length > 0, lambda: _slot(buffer, output), lambda: jnp.zeros_like(x))
    return (y, raw), (encoded, (x, v0, v1) if interpreter.compact else buffer, stats)


def _backward(interpreter, residuals, g):
    encoded, buffer, stats = residuals
    if interpreter.compact:
        buffer, _ = _values(interpreter, encoded, *buffer, stats)
    x, v0, v1 = _cotangents(interpreter, encoded, buffer, stats, g[0])
    none = jax.tree.map(lambda a: np.zeros(np.shape(a), jax.dtypes.float0), encoded)
    return none, x, jnp.sum(v0, (0, 1)), jnp.sum(v1, (0, 1)), jnp.zeros_like(stats)


# The forward rule must not call `_run`: forward-mode differentiation of the backward pass would fail.
_run.defvjp(_forward, _backward)
