"""The op table: name, arity, function and printed form of every op.

Source: arXiv 2004.02967, Table 1, and ops beyond the paper, which graphs may hold but which a search draws
only if `config.search_space.ops` names them. A new element-wise op is one line of `_BEYOND_THE_PAPER` and one
of `reference.py`. A new index set is one entry of `moments.INDEX_SETS`.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from evonorms_jax.search_space import moments
from evonorms_jax.search_space.target import platform

# Guards the denominator of `div` and the argument of `log`, and stands inside the square root of both
# second-order moments. One value for all of them makes the compiled graph of an EvoNorm equal to its
# closed form exactly.
EPSILON = 1e-5


class Op(NamedTuple):
    """One op of the search space."""

    name: str  # in files and in equations
    arity: int  # number of inputs, 1 or 2
    function: Callable[..., jax.Array] | None  # element-wise, (*inputs, epsilon) -> output
    latex: str  # template with {0} and {1} for the inputs
    commutative: bool = False  # whether the order of the inputs does not matter
    kind: str | None = None  # "mean", "rms" or "std" of an aggregation, which has no function
    index_set: str | None = None  # name of an aggregation's index set in `moments.INDEX_SETS`

    @property
    def batch_dependent(self) -> bool:
        """Whether the output for one example depends on the other examples of the batch."""
        return self.index_set is not None and moments.index_set_named(self.index_set).batch


@jax.custom_jvp
def _quotient(x, y):
    """x / y for a TPU. Its derivatives share one reciprocal of y, where JAX's own rule divides twice.

    XLA:TPU computes the gradient of x inside each convolution that reads it, if it is cheap enough to compute
    twice. XLA:CPU would write the reciprocal to memory.
    """
    return x / y


@_quotient.defjvp
def _quotient_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    reciprocal = 1 / y
    return _quotient(x, y), (dx - x * reciprocal * dy) * reciprocal


def _div(x, y, epsilon):
    """x / y, where a denominator smaller than epsilon in magnitude becomes +-epsilon, and +epsilon at 0.

    Without an epsilon it has no guard.
    """
    if epsilon:
        guard = jnp.where(y < 0, -epsilon, epsilon).astype(y.dtype)
        y = jnp.where(jnp.abs(y) < epsilon, guard, y)
    return _quotient(x, y) if platform() == "tpu" else x / y


@jax.custom_jvp
def _maximum(x, y):
    """`jnp.maximum` with all of the gradient for one input: where they are equal, for y.

    JAX's own rule divides it, for which XLA:CPU writes two arrays of weights. A select with a test for NaN
    has a boolean for each channel, with which XLA:TPU fuses less.
    """
    return jnp.maximum(x, y)


@_maximum.defjvp
def _maximum_jvp(primals, tangents):
    x, y = primals
    return _maximum(x, y), jnp.where(x > y, *tangents)


def _max(x, y, epsilon):
    """max(x, y), and NaN if either is NaN."""
    del epsilon
    return _maximum(x, y)


def _log(x, epsilon):
    return jnp.sign(x) * jnp.log(jnp.maximum(jnp.abs(x), epsilon))


def _sqrt(x, epsilon):
    """sign(x) sqrt(abs(x)). Its gradient at 0 is 0 instead of infinite."""
    del epsilon
    zero = x == 0
    # The inner `where` keeps the infinite derivative out of the backward pass, where 0 * inf is NaN.
    return jnp.where(zero, 0, jnp.sign(x) * jnp.sqrt(jnp.abs(jnp.where(zero, 1, x))))


_ELEMENTWISE = (
    Op("add", 2, lambda x, y, epsilon: x + y, "{0} + {1}", commutative=True),
    Op("mul", 2, lambda x, y, epsilon: x * y, "{0} {1}", commutative=True),
    Op("div", 2, _div, r"\frac{{{0}}}{{{1}}}"),
    Op("max", 2, _max, r"\max({0}, {1})", commutative=True),
    Op("neg", 1, lambda x, epsilon: -x, "-{0}"),
    Op("sigmoid", 1, lambda x, epsilon: jax.nn.sigmoid(x), r"\sigma({0})"),
    Op("tanh", 1, lambda x, epsilon: jnp.tanh(x), r"\tanh({0})"),
    Op("exp", 1, lambda x, epsilon: jnp.exp(x), "e^{{{0}}}"),
    Op("abs", 1, lambda x, epsilon: jnp.abs(x), r"\left|{0}\right|"),
    Op("square", 1, lambda x, epsilon: jnp.square(x), "{0}^2"),
    Op("log", 1, _log, r"\mathrm{{slog}}({0})"),
    Op("sqrt", 1, _sqrt, r"\mathrm{{ssqrt}}({0})"),
)
_BEYOND_THE_PAPER = (
    # The point function of Derf, arXiv 2512.10938.
    Op("erf", 1, lambda x, epsilon: jax.lax.erf(x), r"\mathrm{{erf}}({0})"),
)

_SYMBOLS = {"mean": r"\mu", "rms": r"\nu", "std": "s"}


def aggregation(kind: str, index_set: str) -> Op:
    """The op that takes the moment `kind` (mean, rms or std) over an index set, or `ValueError`."""
    indices = moments.index_set_named(index_set).latex
    latex = f"{_SYMBOLS[kind]}_{{{{{indices}}}}}({{0}})"
    return Op(f"{kind}_{index_set}", 1, None, latex, kind=kind, index_set=index_set)


def _aggregations(index_sets: Iterable[str]) -> tuple[Op, ...]:
    return tuple(aggregation(kind, name) for kind in _SYMBOLS for name in index_sets)


_PAPER = _ELEMENTWISE + _aggregations(moments.PAPER_SETS)
_OTHER_SETS = [name for name in moments.INDEX_SETS if name not in moments.PAPER_SETS]

#: Every op by name, the paper's first.
OPS: dict[str, Op] = {op.name: op for op in _PAPER + _BEYOND_THE_PAPER + _aggregations(_OTHER_SETS)}
#: The 24 ops of the paper. Unless it is told others, a search draws from these, and their order is part of
#: the meaning of a seed.
OP_NAMES: tuple[str, ...] = tuple(op.name for op in _PAPER)

#: The leaves are the nodes 0 to 3: the input, the constant 0, and two trainable vectors.
LEAVES: tuple[str, ...] = ("x", "0", "v0", "v1")
LEAF_LATEX: tuple[str, ...] = ("x", "0", "v_0", "v_1")
INPUT, ZERO, V0, V1 = range(len(LEAVES))
#: Start value of the trainable leaves.
LEAF_INIT: dict[str, float] = {"v0": 0.0, "v1": 1.0}
