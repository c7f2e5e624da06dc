"""Random graphs for the tests, and where float32 can be held to account for their results.

float32 can only be held to 1e-5 where a graph does not magnify rounding. The oracle alone decides on that: a
result is well conditioned if inputs changed by 1e-7 of themselves, as rounding to float32 changes them,
change it by less than 1e-6 of its largest element. Nearly all graphs are.
"""

import numpy as np

from evonorms_jax.search_space import LEAVES, OPS, Graph, random_graph


def distinct_graphs(seed: int, count: int) -> list[Graph]:
    """`count` random graphs that use x, no two with the same canonical form."""
    rng = np.random.default_rng(seed)
    found: dict[Graph, Graph] = {}
    while len(found) < count:
        graph = random_graph(rng)
        if graph.uses_input:
            found.setdefault(graph.canonical, graph)
    return list(found.values())


def perturbed(arrays, seed: int, count: int = 4) -> list[list[np.ndarray]]:
    """`count` copies of the arrays in float64, changed as rounding to float32 would change them."""
    rng = np.random.default_rng(seed)
    return [[a * (1 + 1e-7 * rng.uniform(-1, 1, a.shape)) for a in arrays] for _ in range(count)]


def well_conditioned(result: np.ndarray, perturbed_results: list[np.ndarray]) -> bool:
    """Whether the result is the same for perturbed inputs, and fits into float32."""
    with np.errstate(all="ignore"):
        change = max(np.max(np.abs(other - result)) for other in perturbed_results)
    scale = np.max(np.abs(result))
    return bool(change <= 1e-6 * scale and scale < 1e30)


def assert_close(actual, expected: np.ndarray, what="", tolerance: float = 1e-5) -> None:
    """Every element right to `tolerance` of the largest one."""
    error = np.max(np.abs(np.asarray(actual, np.float64) - expected))
    # What is 0 but for rounding, as the gradient of x / x, has no scale of its own.
    scale = max(np.max(np.abs(expected)), 1e-6)
    assert error <= tolerance * scale, f"{what}: off by {error} at a size of {scale}"


def renumbered(rng: np.random.Generator, graph: Graph) -> Graph:
    """The same function, written differently: nodes in another order, commutative inputs swapped."""
    first, last = len(LEAVES), len(LEAVES) + len(graph.nodes) - 1
    place = {i: i for i in range(first)}
    nodes = []
    waiting = list(range(first, last))
    while waiting:
        ready = [i for i in waiting if all(j in place for j in graph.nodes[i - first].inputs)]
        chosen = int(rng.choice(ready))
        waiting.remove(chosen)
        place[chosen] = first + len(nodes)
        nodes.append(graph.nodes[chosen - first])
    nodes.append(graph.nodes[-1])
    moved = []
    for op, inputs in nodes:
        inputs = [place[i] for i in inputs]
        if OPS[op].commutative and rng.random() < 0.5:
            inputs.reverse()
        moved.append((op, inputs))
    return Graph(tuple(moved))
