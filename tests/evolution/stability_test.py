"""The stability test: on a task whose Hessian is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evonorms_jax.evolution.proxy import ProxyState
from evonorms_jax.evolution.stability import make_stability_test


class QuadraticTask:
    """L(w) = sum(k w^2) / 2 over two kernels: H = diag(k), so that H g / ||g|| is known."""

    def loss(self, candidate, params, stats, images, labels):
        del images, labels
        energy = [candidate[name] * jnp.square(params[name]["kernel"]) for name in ("a", "b")]
        rest = jnp.sum(params["a"]["bias"]) + jnp.sum(jnp.square(params["classifier"]["kernel"]))
        return sum(map(jnp.sum, energy)) / 2 + rest, stats


def network(a, b):
    """Parameters with these kernels, and with others that the test leaves alone."""
    others = {"classifier": {"kernel": jnp.ones((2, 2))}}
    return others | {"a": {"kernel": a, "bias": jnp.zeros(3)}, "b": {"kernel": b}}


def fresh(params):
    """The start of a training."""
    return ProxyState(params, {}, None, jnp.int32(0), jnp.float32(0))


def test_the_stability_test_climbs_along_the_hessian_times_the_gradient():
    """One kernel is that of a convolution, the other that of a dense layer."""
    curvature = {"a": jnp.full((1, 1, 2, 1), 3.0), "b": jnp.full((1, 1), 0.5)}
    state = fresh(network(jnp.array([1.0, -2.0]).reshape(1, 1, 2, 1), jnp.ones((1, 1))))

    def climb(steps):
        test = make_stability_test(QuadraticTask(), steps=steps, max_norm=1e8, step_size=0.1)
        return jax.jit(test)(curvature, state, None, None)

    w, k = np.array([1.0, -2.0, 1.0]), np.array([3.0, 3.0, 0.5])
    norms = []
    for _ in range(3):
        norms.append(np.linalg.norm(k * w))
        ascent = k * (k * w) / norms[-1]
        w = w + 0.1 * np.linalg.norm(w) * ascent / np.linalg.norm(ascent)
    assert float(climb(3).norm) == pytest.approx(norms[-1], rel=1e-4)
    assert int(climb(3).steps) == 3


def test_the_stability_test_ends_with_a_norm_above_the_limit():
    curvature = {name: jnp.full((1, 1, 1, 1), 1e9) for name in ("a", "b")}
    params = network(*jnp.ones((2, 1, 1, 1, 1)))
    test = make_stability_test(QuadraticTask(), steps=100, max_norm=1e8, step_size=0.1)
    result = jax.jit(test)(curvature, fresh(params), None, None)
    assert float(result.norm) > 1e8 and int(result.steps) == 0
