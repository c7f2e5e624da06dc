"""One program for every graph: the graph is data, an interpreter on the device runs it.

Building a program costs seconds, screening a candidate less: here a candidate is a handful of integers, so
that one compiled model serves a whole search, and `jax.pmap` can give each device its own. The price is a
slower step, two to three times that of a compiled graph in a small network on a CPU.

Shapes: x `[B, *S, C]`; node values live in one buffer `[slots, B, S, C]` with the space flattened, slot by
node index: the leaves x, 0, v0, v1, then the live nodes in order, then two that are free.

The interpreter has a backward pass of its own. A loop with a trip count that is data has no reverse-mode
derivative, and one over all nodes would run the dead ones too. The backward pass walks a second tape, whose
entries are the edges of the graph: each adds the cotangent that one node sends to one of its inputs. It keeps
the buffer of the forward pass, 16 activations a layer: to rebuild it would make the program half as large
again, to build and to run, and a proxy network is small. Cotangents go into the slots of values that no edge
needs any more, since to clear a buffer is a good part of what a layer costs. Forward-mode differentiation of
the backward pass works, so second derivatives do (`jax.jvp` of `jax.grad`).

On a TPU the program has a compact form with the same results. All element-wise instructions share one branch.
It computes each of them in one pass and selects: fewer kernels are built, and memory bounds the pass anyway.
The aggregations share another branch. The backward pass rebuilds the buffer from x, v0 and v1, so that one
buffer exists at a time instead of one for each layer.

Under `vmap` over candidates every op would run for every node: put candidates on devices or in sequence.
Under `vmap` over replicas of one candidate nothing of the kind happens.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evonorms_jax.search_space import moments
from evonorms_jax.search_space.encoding import CAPACITY, EDGES, INSTRUCTIONS, SLOTS, EncodedGraph
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
) -> tuple[jax.Array, jax.Array]:
    """The output of the graph and the moving statistics, as a compiled graph gives them.

    Args:
      encoded: the candidate, traced or not.
      x: `[B, *S, C]`.
      v0: `[C]`.
      v1: `[C]`.
      stats: `[CAPACITY, C]` raw moments by node; rows that are no batch aggregation mean nothing.
      train: whether batch aggregations use the batch's own moments, and stats advance.
      groups: channel groups; the largest divisor of C that is not above it is used.
      group_size: channels of a group, wins over `groups` if given.
      epsilon: the guard of div, log and the second-order moments.
      momentum: decay of the moving statistics.

    Returns:
      y with the shape and dtype of x, and the statistics.
    """
    groups = moments.resolve_groups(x.shape[-1], groups, group_size)
    flat = x.astype(jnp.float32).reshape(x.shape[0], -1, x.shape[-1])
    interpreter = _Interpreter(groups, epsilon, train, compact=platform() == "tpu")
    y, raw = _run(interpreter, encoded, flat, v0.astype(jnp.float32), v1.astype(jnp.float32), stats)
    if train:
        stats = momentum * stats + (1 - momentum) * jax.lax.stop_gradient(raw)
    return y.reshape(x.shape).astype(x.dtype), stats


class _Interpreter(NamedTuple):
    """The static settings, and one function an instruction.

    A function takes `(a, b, index_set, stat)`, a and b `[B, S, C]` and stat `[C]`, and returns the value,
    `[B, S, C]`, and the raw moment, `[C]`, if the instruction is an aggregation over the batch.
    """

    groups: int
    epsilon: float
    train: bool
    compact: bool

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
        return jnp.broadcast_to(value, a.shape), raw[0, 0]

    def raw_moment(self, kind: str, a, index_set, stat):
        """`[B, 1, C]`. An average over an index set is a projection of the averages over instances."""
        if kind == "rms":
            raw = self.project(jnp.mean(jnp.square(a), 1, keepdims=True), index_set)
        else:
            raw = mean = self.project(jnp.mean(a, 1, keepdims=True), index_set)
            if kind == "std":
                raw = self.project(jnp.mean(jnp.square(a - mean), 1, keepdims=True), index_set)
        if self.train:
            return raw
        is_batch = index_set == moments.INDEX_SETS.index(moments.BATCH)
        return jnp.where(is_batch, stat.reshape(1, 1, -1), raw)

    def project(self, values, index_set):
        """Averages `[B, 1, C]` over what the index set adds to an instance, and repeats the result."""
        grouped = values.reshape(*values.shape[:2], self.groups, -1)
        of_group = jnp.broadcast_to(jnp.mean(grouped, -1, keepdims=True), grouped.shape)
        averages = {
            moments.BATCH: jnp.mean(values, 0, keepdims=True),
            moments.LAYER: jnp.mean(values, -1, keepdims=True),
            moments.GROUP: of_group.reshape(values.shape),
        }
        chosen = values
        for name, average in averages.items():
            chosen = jnp.where(index_set == moments.INDEX_SETS.index(name), average, chosen)
        return chosen


def _zeros(shape, like):
    """Zeros that XLA does not know to be constant.

    A constant buffer is made once, outside the training loop, and copied in every step: a read more.
    """
    return jnp.full(shape, jnp.where(like[0, 0, 0] > jnp.inf, 1, 0).astype(like.dtype))


# Plain indexing checks the bounds, which costs a pass over the buffer; these do not.
def _slot(buffer, index):
    return jax.lax.dynamic_index_in_dim(buffer, index, 0, keepdims=False)


def _slots(buffer, indices):
    return [_slot(buffer, indices[k]) for k in range(2)]


def _put(buffer, value, index):
    return jax.lax.dynamic_update_index_in_dim(buffer, value, index, 0)


def _switch(groups, code, run, *operands):
    """`run(entry, *operands)` for the entry number `code` of all groups, each of which is a branch.

    A branch computes all of its entries and selects one result. A NaN of the others is dropped with them.
    """
    starts = np.cumsum([0, *map(len, groups)])

    def branch(group, start):
        def of_group(*operands):
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
    buffer = jnp.concatenate([leaves, _zeros((SLOTS - len(LEAVES), *x.shape), x)])

    def run(name, buffer, inputs, index_set, stat):
        # Slices are taken inside the branch, where they fuse with the op.
        return interpreter.function(name)(*_slots(buffer, inputs), index_set, stat)

    groups = interpreter.branches(INSTRUCTIONS, lambda name: name)

    def step(number, carry):
        buffer, raw = carry
        value, moment = _switch(
            groups,
            encoded.code[number],
            run,
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

        def of_target(target):
            replaced = [*operands[:k], target, *operands[k + 1 :]]
            return interpreter.function(name)(*replaced, index_set, stat)[0]

        return jax.vjp(of_target, operands[k])[1](_slot(buffer, own))[0]

    groups = interpreter.branches(EDGES, lambda edge: edge[0])

    def step(entry, buffer):
        code, number, own, target, first = encoded.edges[entry]
        sent = _switch(
            groups,
            code,
            run,
            buffer,
            encoded.inputs[number],
            encoded.index_set[number],
            stats[number],
            own,
        )
        # In the slot of a target that has received nothing yet lies a value.
        return _put(buffer, jnp.where(first, sent, _slot(buffer, target) + sent), target)

    buffer = jax.lax.fori_loop(0, encoded.num_edges, step, _put(buffer, g, SLOTS - 1))
    return [jnp.where(encoded.received[k] < 0, 0, _slot(buffer, encoded.received[k])) for k in range(3)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(interpreter, encoded, x, v0, v1, stats):
    return _forward(interpreter, encoded, x, v0, v1, stats)[0]


def _forward(interpreter, encoded, x, v0, v1, stats):
    buffer, raw = _values(interpreter, encoded, x, v0, v1, stats)
    # A branch, though there is one way only: XLA fuses a plain slice into what uses it, down to the backward
    # pass of the network, and then that of the layer has to copy the buffer before it writes there.
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
