"""Compiled graphs against NumPy float64 on thousands of random graphs: values, statistics, gradients."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import graph_oracle as oracle
from support.random_graphs import assert_close, well_conditioned

from evonorms_jax.search_space import compile_graph

CHUNK = 250
NUM_GRADIENTS = 200
STATISTICS = {"mean_bwh": "mean", "rms_bwh": "mean_square", "std_bwh": "var"}


def first_of(starts):
    """The chunks that begin at `starts` as parameters: the first in every run, the others exhaustively."""
    return [pytest.param(start, marks=pytest.mark.exhaustive if start else ()) for start in starts]


def named(graph, results):
    """Results of the oracle, statistics by the names that compiled graphs give them."""
    counts, names = Counter(), {}
    for index in results:
        if not isinstance(index, str):
            kind = STATISTICS[graph.canonical.nodes[index - 4].op]
            names[index] = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1
    return {names.get(key, key): value for key, value in results.items()}


def compiled_results(chunk):
    """All graphs of the chunk as one program, for the sake of build time."""
    layers = [compile_graph(graph, groups=oracle.GROUPS) for graph in chunk]

    def program(x, v0, v1):
        results = []
        for layer in layers:
            params, stats = layer.init(oracle.SHAPE[-1])
            params = {name: {"v0": v0, "v1": v1}[name] for name in params}
            y, stats = layer.apply(params, stats, x, train=True)
            results.append({"train": y, **stats})
            if stats:
                results[-1]["inference"], _ = layer.apply(params, stats, x, train=False)
        return results

    return jax.device_get(jax.jit(program)(*oracle.inputs()))


@pytest.mark.slow
@pytest.mark.parametrize("start", first_of(range(0, oracle.NUM_GRAPHS, CHUNK)))
def test_values_and_statistics(start):
    chunk = oracle.graphs()[start : start + CHUNK]
    checked = statistics = 0
    for graph, actual in zip(chunk, compiled_results(chunk), strict=True):
        expected, *others = (
            named(graph, oracle.expected_results(graph, *arrays)) for arrays in oracle.every_input()
        )
        assert set(actual) == set(expected)
        for name in expected:
            if well_conditioned(expected[name], [other[name] for other in others]):
                assert_close(actual[name], expected[name], f"{name} of {graph}")
                checked += name == "train"
                statistics += name not in ("train", "inference")
    assert checked > 0.95 * CHUNK
    assert statistics > 0.3 * CHUNK


def compiled_gradients(chunk):
    """A program of the gradients of `sum(weights * y)` with respect to x, v0 and v1, for every graph."""
    weights = oracle.loss_weights()

    def program(x, v0, v1):
        def loss(layer, x, v0, v1):
            params, stats = layer.init(oracle.SHAPE[-1])
            params = {name: {"v0": v0, "v1": v1}[name] for name in params}
            return jnp.sum(weights.astype(x.dtype) * layer.apply(params, stats, x, train=True)[0])

        gradient = jax.grad(loss, (1, 2, 3))
        return [gradient(compile_graph(graph, groups=oracle.GROUPS), x, v0, v1) for graph in chunk]

    return jax.jit(program)


@pytest.mark.slow
@pytest.mark.parametrize("start", first_of(range(0, NUM_GRADIENTS, 100)))
def test_gradients(start):
    """float64 against finite differences of the oracle where those converge; float32 against float64."""
    chunk = oracle.graphs()[start : start + 100]
    program = compiled_gradients(chunk)
    single = jax.device_get(program(*oracle.inputs()))
    with jax.enable_x64(True):
        double, *others = [
            jax.device_get(program(*(a.astype(np.float64) for a in arrays)))
            for arrays in oracle.every_input()
        ]
    directions = np.random.default_rng(4).normal(size=(3, oracle.flat(oracle.inputs()).size))
    smooth = well = 0
    for i, graph in enumerate(chunk):
        gradient = oracle.flat(double[i])
        loss = oracle.loss_along(graph, oracle.inputs(), lambda y: oracle.loss_weights() * y)
        with np.errstate(all="ignore"):
            coarse, fine = (oracle.slopes(loss, directions, step) for step in (2e-5, 1e-5))
        if np.max(np.abs(coarse - fine)) <= 1e-5 * np.max(np.abs(fine)):
            smooth += 1
            assert_close(directions @ gradient, fine + (fine - coarse) / 3, graph)
        if well_conditioned(gradient, [oracle.flat(other[i]) for other in others]):
            well += 1
            assert_close(oracle.flat(single[i]), gradient, graph)
    assert smooth > 0.8 * len(chunk)
    assert well > 0.8 * len(chunk)
