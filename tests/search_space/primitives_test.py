"""The op table: which ops there are, and the numerical guards of div, log and sqrt."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evonorms_jax.search_space import LEAVES, OP_NAMES, OPS, Graph, evaluate_reference
from evonorms_jax.search_space.primitives import EPSILON, LEAF_INIT
from evonorms_jax.search_space.target import building_for

BINARY = {"add", "mul", "div", "max"}
UNARY = {"neg", "sigmoid", "tanh", "exp", "abs", "square", "log", "sqrt"}
BEYOND = {"erf", "mean_c", "rms_c", "std_c"}


def test_the_24_ops_of_the_paper():
    index_sets = ("bwh", "whc", "wh", "whc/g")
    aggregations = {f"{kind}_{i}" for kind in ("mean", "rms", "std") for i in index_sets}
    assert set(OP_NAMES) == BINARY | UNARY | aggregations
    assert len(OP_NAMES) == 24
    assert set(OPS) - set(OP_NAMES) == BEYOND
    assert {name for name, op in OPS.items() if op.arity == 2} == BINARY
    assert {name for name, op in OPS.items() if op.commutative} == BINARY - {"div"}
    assert {name for name, op in OPS.items() if op.function is None} == aggregations | BEYOND - {"erf"}
    assert {name for name, op in OPS.items() if op.batch_dependent} == {
        "mean_bwh",
        "rms_bwh",
        "std_bwh",
    }


def test_leaves():
    assert LEAVES == ("x", "0", "v0", "v1")
    assert LEAF_INIT == {"v0": 0.0, "v1": 1.0}


def test_epsilon_is_the_papers():
    assert EPSILON == 1e-5


@pytest.mark.parametrize(
    ("denominator", "becomes"),
    [
        (0.0, 1e-5),
        (-0.0, 1e-5),
        (9e-6, 1e-5),
        (-9e-6, -1e-5),
        (1e-12, 1e-5),
        (-1e-12, -1e-5),
        (1e-5, 1e-5),
        (1.1e-5, 1.1e-5),
        (-1.1e-5, -1.1e-5),
        (-3.0, -3.0),
        (1e20, 1e20),
    ],
)
def test_div_replaces_small_denominators_only(denominator, becomes):
    y = np.float32(denominator)
    actual = OPS["div"].function(jnp.float32(2), jnp.asarray(y), epsilon=1e-5)
    np.testing.assert_allclose(actual, np.float32(2) / np.float32(becomes), rtol=1e-6)
    x = np.full((1, 1, 1), denominator)
    np.testing.assert_allclose(evaluate_reference(Graph.parse("v1 / x"), x, v1=2.0), 2 / becomes)


def test_div_has_the_same_derivatives_in_the_form_for_a_tpu(rng):
    """Denominators of any size and sign that the guard leaves alone, and some that it replaces."""
    arguments = (rng.normal(size=(2, 200)) * np.logspace(-6, 8, 200)).astype(np.float32)

    def derivatives(platform):
        with building_for(platform):
            value, pull = jax.vjp(functools.partial(OPS["div"].function, epsilon=1e-5), *arguments)
            return value, *pull(jnp.ones(200))

    for actual, expected in zip(derivatives("tpu"), derivatives("cpu"), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_div_without_an_epsilon_has_no_guard():
    np.testing.assert_allclose(OPS["div"].function(jnp.float32(2), jnp.float32(1e-12), epsilon=0), 2e12)


def test_max_keeps_nan_and_its_second_input_has_the_gradient_where_both_are_equal():
    x, y = jnp.asarray([1.0, 2, 3, np.nan, 0, np.nan]), jnp.asarray([2.0, 1, 3, 0, np.nan, np.nan])
    value, pull = jax.vjp(lambda x, y: OPS["max"].function(x, y, epsilon=1e-5), x, y)
    np.testing.assert_array_equal(value, [2, 2, 3, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(pull(jnp.ones(6))[0][:3], [0, 1, 0])
    np.testing.assert_array_equal(pull(jnp.ones(6))[1][:3], [1, 0, 1])
    assert np.isnan(np.add(*pull(jnp.full(6, np.nan)))).all()


@pytest.mark.parametrize("value", [0.0, 1e-30, -1e-7, 1e-5, -0.5, 1.0, 20.0])
def test_log_is_odd_and_finite(value):
    def log(x):
        return OPS["log"].function(x, epsilon=1e-5)

    expected = np.sign(value) * np.log(max(abs(value), 1e-5))
    np.testing.assert_allclose(log(jnp.float32(value)), expected, rtol=1e-6)
    assert np.isfinite(jax.grad(log)(jnp.float32(value)))


def test_sqrt_is_odd_with_a_finite_gradient_at_zero():
    def sqrt(x):
        return OPS["sqrt"].function(x, epsilon=1e-5)

    x = jnp.asarray([-4.0, -1e-8, -0.0, 0.0, 1e-8, 4.0])
    np.testing.assert_allclose(sqrt(x), [-2, -1e-4, 0, 0, 1e-4, 2], rtol=1e-6)
    gradient = jax.vmap(jax.grad(sqrt))(x)
    np.testing.assert_allclose(gradient, [0.25, 5e3, 0, 0, 5e3, 0.25], rtol=1e-5)
    second = jax.vmap(jax.grad(jax.grad(sqrt)))(x)
    assert np.isfinite(second).all()


@pytest.mark.parametrize("name", sorted(BINARY | UNARY | {"erf"}))
def test_elementwise_ops_equal_the_oracle(name, rng):
    """The whole line, the tails and the surroundings of 0 included."""
    scales = np.repeat([1e-6, 1e-2, 1, 20], 50)
    x, v1 = (rng.normal(size=(2, 3, 200)) * scales).astype(np.float32), rng.normal(size=200) * scales[::-1]
    arguments = [jnp.asarray(x), jnp.asarray(v1, jnp.float32)[None, None]][: OPS[name].arity]
    actual = OPS[name].function(*arguments, epsilon=1e-5)
    assert actual.dtype == jnp.float32
    graph = Graph([(name, (0, 3)[: OPS[name].arity])])
    expected = evaluate_reference(graph, x, v1=v1.astype(np.float32))
    np.testing.assert_allclose(actual, expected, rtol=3e-6, atol=1e-12)
