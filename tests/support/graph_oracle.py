"""What both executors are held against on the same 2,000 random graphs: NumPy float64, its differences."""

import functools
from collections.abc import Callable

import numpy as np

from evonorms_jax.search_space import OPS, Graph, evaluate_reference, reference_batch_moments
from support.random_graphs import distinct_graphs, perturbed

SHAPE = (2, 3, 2, 4)
GROUPS = 2
NUM_GRAPHS = 2000


@functools.cache
def graphs() -> list[Graph]:
    return distinct_graphs(seed=0, count=NUM_GRAPHS)


@functools.cache
def inputs() -> list[np.ndarray]:
    """x `[2, 3, 2, 4]`, v0 and v1 `[4]` in float32, away from special values."""
    rng = np.random.default_rng(1)
    draws = rng.normal(0.3, 1, SHAPE), rng.normal(0, 0.5, 4), rng.normal(1, 0.5, 4)
    return [array.astype(np.float32) for array in draws]


@functools.cache
def every_input() -> list[list[np.ndarray]]:
    """`inputs`, then copies of them that differ as rounding makes them differ."""
    return [inputs(), *perturbed(inputs(), seed=2)]


@functools.cache
def loss_weights() -> np.ndarray:
    return np.random.default_rng(3).normal(size=SHAPE)


def flat(arrays) -> np.ndarray:
    """x, v0 and v1, or their derivatives, as one float64 vector `[56]`."""
    return np.concatenate([np.ravel(np.asarray(array, np.float64)) for array in arrays])


def expected_results(graph: Graph, x, v0, v1) -> dict[str | int, np.ndarray]:
    """By the oracle: the output "train", the moving statistics after it by node, the output "inference"."""
    canonical, moving = graph.canonical, {}
    for index, moment in sorted(reference_batch_moments(canonical, x, v0, v1, GROUPS).items()):
        start = float(OPS[canonical.nodes[index - 4].op].kind != "mean")
        moving[index] = 0.9 * start + 0.1 * moment
    results = {"train": evaluate_reference(graph, x, v0, v1, GROUPS)}
    if moving:
        results["inference"] = evaluate_reference(canonical, x, v0, v1, GROUPS, batch_moments=moving)
    return results | moving


def loss_along(
    graph: Graph, arrays, loss: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], float]:
    """The loss of the oracle's output as a function of an offset `[56]` of x, v0 and v1."""

    def at(offset):
        parts = np.split(offset, [arrays[0].size, arrays[0].size + 4])
        moved = [a + part.reshape(a.shape) for a, part in zip(arrays, parts, strict=True)]
        return np.sum(loss(evaluate_reference(graph, *moved, GROUPS)))

    return at


def slopes(at: Callable[[np.ndarray], float], directions: np.ndarray, step: float) -> np.ndarray:
    """Central differences along the directions `[D, 56]`."""
    return np.array([(at(step * d) - at(-step * d)) / (2 * step) for d in directions])


def curvatures(at, directions: np.ndarray, other: np.ndarray, step: float) -> np.ndarray:
    """Differences of differences: `d @ H @ other` for each direction d, H the second derivative."""
    u = step * other
    return np.array(
        [
            (at(v + u) - at(v - u) - at(u - v) + at(-u - v)) / (4 * step**2)
            for v in (step * d for d in directions)
        ]
    )
