"""The universal program against NumPy float64 on thousands of random graphs, in all that a search asks of it.

Compiled graphs are held against the same oracle, on the same graphs and inputs (`compiled_oracle_test.py`):
so the two executors agree with each other.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import graph_oracle as oracle
from support.random_graphs import well_conditioned

from evonorms_jax.search_space import BASELINES, CATALOG
from evonorms_jax.search_space.encoding import encode
from evonorms_jax.search_space.universal import apply_encoded, initial_statistics

GRAPHS = [*(CATALOG | BASELINES).values(), *oracle.graphs()]


def off_by(actual, expected) -> float:
    """The largest error, relative to the largest element; NaN counts as all of it."""
    error = np.abs(np.asarray(actual, np.float64) - expected).max()
    return float(np.nan_to_num(error / max(np.abs(expected).max(), 1e-6), nan=1.0))


@jax.jit
def both_modes(encoded, x, v0, v1):
    """The output in training, the statistics after it, and with them the output in inference."""
    stats = initial_statistics(encoded, oracle.SHAPE[-1])
    y, stats = apply_encoded(encoded, x, v0, v1, stats, train=True, groups=oracle.GROUPS)
    return y, stats, apply_encoded(encoded, x, v0, v1, stats, train=False, groups=oracle.GROUPS)


def test_values_and_statistics():
    compared, wrong = {"train": 0, "inference": 0, "statistics": 0}, []
    for graph in GRAPHS:
        y, stats, (inferred, unchanged) = jax.device_get(both_modes(encode(graph), *oracle.inputs()))
        np.testing.assert_array_equal(unchanged, stats)
        expected, *others = (oracle.expected_results(graph, *arrays) for arrays in oracle.every_input())
        for key, value in expected.items():
            if not well_conditioned(value, [other[key] for other in others]):
                continue
            actual = {"train": y, "inference": inferred}[key] if isinstance(key, str) else stats[key - 4]
            compared[key if isinstance(key, str) else "statistics"] += 1
            if off_by(actual, value) > 1e-5:
                wrong.append(f"{key} of {graph}")
        if "inference" not in expected:
            np.testing.assert_array_equal(inferred, y, str(graph))
    assert compared["train"] > 0.95 * oracle.NUM_GRAPHS
    assert min(compared["inference"], compared["statistics"]) > 0.3 * oracle.NUM_GRAPHS
    # exp(-100) is 0 in float32, and log jumps there; the oracle's digits do not show it.
    assert len(wrong) <= 4 and all("log" in text and "exp" in text for text in wrong), wrong


def loss(y):
    """`[2, 3, 2, 4]` to as much; its sum has a second derivative for graphs that have none, too."""
    return oracle.loss_weights().astype(y.dtype) * y + y * y / 2


@jax.jit
def derivatives(encoded, arrays, direction):
    """Gradient with respect to x, v0 and v1, and the second derivative times a direction."""

    def of_layer(arrays):
        stats = initial_statistics(encoded, oracle.SHAPE[-1])
        return jnp.sum(loss(apply_encoded(encoded, *arrays, stats, train=True, groups=oracle.GROUPS)[0]))

    return jax.jvp(jax.grad(of_layer), (arrays,), (direction,))


def difference(formula, graph, step) -> np.ndarray | None:
    """A derivative by differences of the oracle; None where float32 cannot be held to it.

    That is where half the step gives something else (there is a kink, a tie of max or abs, or a cliff), where
    inputs changed as rounding changes them do so, or where all that is left is below 1e-2: two terms that
    cancel, as for x / x, whose rounding has no scale.
    """
    coarse, fine, *others = (
        formula(oracle.loss_along(graph, arrays, loss), size)
        for arrays, size in [(oracle.inputs(), step), *((a, step / 2) for a in oracle.every_input()[:3])]
    )
    scale = np.abs(fine).max()
    if not (scale > 1e-2 and np.abs(coarse - fine).max() <= 1e-5 * scale and well_conditioned(fine, others)):
        return None
    return fine + (fine - coarse) / 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "count", [oracle.NUM_GRAPHS // 4, pytest.param(oracle.NUM_GRAPHS, marks=pytest.mark.exhaustive)]
)
def test_gradients_and_products_with_the_second_derivative(count):
    """Along three directions of x, v0 and v1 together. No derivative of ours is trusted."""
    rng = np.random.default_rng(4)
    other, *directions = (
        [rng.normal(size=a.shape).astype(np.float32) for a in oracle.inputs()] for _ in range(4)
    )
    along = np.array([oracle.flat(direction) for direction in directions])
    compared, wrong = {"gradient": 0, "product": 0}, []
    for graph in GRAPHS[:count]:
        gradient, product = jax.device_get(derivatives(encode(graph), oracle.inputs(), other))
        with np.errstate(all="ignore"):
            expected = {
                "gradient": difference(lambda at, step: oracle.slopes(at, along, step), graph, 2e-5),
                "product": difference(
                    lambda at, step: oracle.curvatures(at, along, oracle.flat(other), step), graph, 2e-4
                ),
            }
        for name, actual, tolerance in (("gradient", gradient, 1e-4), ("product", product, 1e-3)):
            if expected[name] is not None:
                compared[name] += 1
                if off_by(along @ oracle.flat(actual), expected[name]) > tolerance:
                    wrong.append(f"{name} of {graph}")
    assert compared["gradient"] > 0.75 * count and compared["product"] > 0.65 * count
    # Rounding within a graph is not seen by changing its inputs: where tanh is all but 1, or exp near inf.
    assert len(wrong) <= 4 and all("tanh" in text or "exp" in text for text in wrong), (compared, wrong)
