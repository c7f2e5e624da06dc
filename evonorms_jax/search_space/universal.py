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

Under `vmap` over candidates every op would run for every node: put candidates on devices or in sequence.
Under `vmap` over replicas of one candidate nothing of the kind happens.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evonorms_jax.search_space import moments
from evonorms_jax.search_space.encoding import CAPACITY, EDGES, INSTRUCTIONS, SLOTS, EncodedGraph
from evonorms_jax.search_space.primitives import EPSILON, LEAVES, OPS


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
      y with the shape and dtype of x, and the statistics. Without an element in x they are unchanged.
    """
    groups = moments.resolve_groups(x.shape[-1], groups, group_size)
    if x.size == 0:
        return x, stats
    flat = x.astype(jnp.float32).reshape(x.shape[0], -1, x.shape[-1])
    interpreter = _Interpreter(groups, epsilon, train)
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

    def raw_moment(self, kind: str, a, index_set, stat):
        """`[B, 1, C]`, or `[B, S, C]` if one of the index sets has no space."""
        if kind == "rms":
            raw = self.average(jnp.square(a), index_set)
        else:
            raw = mean = self.average(a, index_set)
            if kind == "std":
                raw = self.average(jnp.square(a - mean), index_set)
        for number, entry in enumerate(moments.INDEX_SETS.values()):
            if entry.batch and not self.train:
                raw = jnp.where(index_set == number, stat.reshape(1, 1, -1), raw)
        return raw

    def average(self, values, index_set):
        """The average of `[B, S, C]` over the index set, which is data.

        Every index set of the paper averages over space, so that is done once. The choice between the sets is
        then one between small arrays.
        """
        over_space = jnp.mean(values, 1, keepdims=True)
        chosen = over_space
        for number, entry in enumerate(moments.INDEX_SETS.values()):
            average = self.project(over_space if entry.space else values, entry)
            if average is not over_space:
                chosen = jnp.where(index_set == number, average, chosen)
        return chosen

    def project(self, values, entry: moments.IndexSet):
        """Averages over the batch and the channels of an index set; a group's average is repeated."""
        if entry.channels == "group":
            grouped = values.reshape(*values.shape[:2], self.groups, -1)
            of_group = jnp.broadcast_to(jnp.mean(grouped, -1, keepdims=True), grouped.shape)
            values = of_group.reshape(values.shape)
        elif entry.channels == "all":
            values = jnp.mean(values, -1, keepdims=True)
        return jnp.mean(values, 0, keepdims=True) if entry.batch else values


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


# Jitted so that layers of the same shape are traced and lowered once.
@functools.partial(jax.jit, static_argnums=0)
def _values(
    interpreter: _Interpreter, encoded: EncodedGraph, x, v0, v1, stats
) -> tuple[jax.Array, jax.Array]:
    """Runs the forward tape: the buffer `[slots, B, S, C]` and the raw moments `[CAPACITY, C]`."""
    per_channel = (jnp.broadcast_to(v.reshape(1, 1, -1), x.shape) for v in (v0, v1))
    leaves = jnp.stack([x, jnp.zeros_like(x), *per_channel])
    buffer = jnp.concatenate([leaves, _zeros((SLOTS - len(LEAVES), *x.shape), x)])

    def branch(name):
        # Slices are taken inside the branch, where they fuse with the op.
        def run(buffer, inputs, index_set, stat):
            return interpreter.function(name)(*_slots(buffer, inputs), index_set, stat)

        return run

    def step(number, carry):
        buffer, raw = carry
        value, moment = jax.lax.switch(
            encoded.code[number],
            [branch(name) for name in INSTRUCTIONS],
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

    def branch(name, k):
        def run(buffer, inputs, index_set, stat, own):
            operands = _slots(buffer, inputs)

            def of_target(target):
                replaced = [*operands[:k], target, *operands[k + 1 :]]
                return interpreter.function(name)(*replaced, index_set, stat)[0]

            return jax.vjp(of_target, operands[k])[1](_slot(buffer, own))[0]

        return run

    def step(entry, buffer):
        code, number, own, target, first = encoded.edges[entry]
        sent = jax.lax.switch(
            code,
            [branch(name, k) for name, k in EDGES],
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
    return (y, raw), (encoded, buffer, stats)


def _backward(interpreter, residuals, g):
    encoded, buffer, stats = residuals
    x, v0, v1 = _cotangents(interpreter, encoded, buffer, stats, g[0])
    none = jax.tree.map(lambda a: np.zeros(np.shape(a), jax.dtypes.float0), encoded)
    return none, x, jnp.sum(v0, (0, 1)), jnp.sum(v1, (0, 1)), jnp.zeros_like(stats)


# The forward rule must not call `_run`: forward-mode differentiation of the backward pass would fail.
_run.defvjp(_forward, _backward)
