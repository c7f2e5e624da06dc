"""Compiled graphs against NumPy float64 on thousands of random graphs: values, statistics, gradients."""

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_graphs import assert_close, distinct_graphs, perturbed, well_conditioned

from evonorms_jax.search_space import compile_graph, evaluate_reference, reference_batch_moments

SHAPE = (2, 3, 2, 4)
GROUPS = 2
NUM_GRAPHS, CHUNK = 2000, 250
NUM_GRADIENTS = 200
# What is tested here is not the code generator; without its optimizer programs build faster.
FAST_BUILD = {"xla_backend_optimization_level": 0}
STATISTICS = {"mean_bwh": ("mean", 0.0), "rms_bwh": ("mean_square", 1.0), "std_bwh": ("var", 1.0)}


@functools.cache
def graphs():
    return distinct_graphs(seed=0, count=NUM_GRAPHS)


@functools.cache
def inputs():
    """x `[2, 3, 2, 4]`, v0 and v1 `[4]` in float32, away from special values."""
    rng = np.random.default_rng(1)
    draws = rng.normal(0.3, 1, SHAPE), rng.normal(0, 0.5, 4), rng.normal(1, 0.5, 4)
    return [array.astype(np.float32) for array in draws]


@functools.cache
def perturbed_inputs():
    return perturbed(inputs(), seed=2)


def expected_results(graph, x, v0, v1) -> dict[str, np.ndarray]:
    """By the oracle: the output in training, the statistics after it, the output in inference with them."""
    canonical, counts, moving, names = graph.canonical, Counter(), {}, {}
    moments = reference_batch_moments(canonical, x, v0, v1, GROUPS)
    for index in sorted(moments):
        kind, start = STATISTICS[canonical.nodes[index - 4].op]
        names[index] = f"{kind}_{counts[kind]}" if counts[kind] else kind
        counts[kind] += 1
        moving[index] = 0.9 * start + 0.1 * moments[index]
    results = {"train": evaluate_reference(graph, x, v0, v1, GROUPS)}
    if moving:
        results["inference"] = evaluate_reference(canonical, x, v0, v1, GROUPS, batch_moments=moving)
    return results | {names[index]: moving[index] for index in moving}


def compiled_results(chunk):
    """All graphs of the chunk as one program, for the sake of build time."""
    layers = [compile_graph(graph, groups=GROUPS) for graph in chunk]

    def program(x, v0, v1):
        results = []
        for layer in layers:
            params, stats = layer.init(SHAPE[-1])
            params = {name: {"v0": v0, "v1": v1}[name] for name in params}
            y, stats = layer.apply(params, stats, x, train=True)
            results.append({"train": y, **stats})
            if stats:
                results[-1]["inference"], _ = layer.apply(params, stats, x, train=False)
        return results

    return jax.device_get(jax.jit(program, compiler_options=FAST_BUILD)(*inputs()))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, NUM_GRAPHS, CHUNK))
def test_values_and_statistics(start):
    chunk = graphs()[start : start + CHUNK]
    checked = statistics = 0
    for graph, actual in zip(chunk, compiled_results(chunk), strict=True):
        expected = expected_results(graph, *inputs())
        others = [expected_results(graph, *arrays) for arrays in perturbed_inputs()]
        assert set(actual) == set(expected)
        for name in expected:
            if well_conditioned(expected[name], [other[name] for other in others]):
                assert_close(actual[name], expected[name], f"{name} of {graph}")
                checked += name == "train"
                statistics += name not in ("train", "inference")
    assert checked > 0.95 * CHUNK
    assert statistics > 0.3 * CHUNK


def loss_weights():
    return np.random.default_rng(3).normal(size=SHAPE)


def compiled_gradients(chunk):
    """A program of the gradients of `sum(weights * y)` with respect to x, v0 and v1, for every graph."""
    weights = loss_weights()

    def program(x, v0, v1):
        def loss(layer, x, v0, v1):
            params, stats = layer.init(SHAPE[-1])
            params = {name: {"v0": v0, "v1": v1}[name] for name in params}
            return jnp.sum(weights.astype(x.dtype) * layer.apply(params, stats, x, train=True)[0])

        gradient = jax.grad(loss, (1, 2, 3))
        return [gradient(compile_graph(graph, groups=GROUPS), x, v0, v1) for graph in chunk]

    return jax.jit(program, compiler_options=FAST_BUILD)


def flat(gradients) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(g, np.float64)) for g in gradients])


def finite_differences(graph, directions, step) -> np.ndarray:
    """Central differences of the oracle's loss along directions in the space of (x, v0, v1)."""

    def loss(offset):
        x, v0, v1 = inputs()
        parts = np.split(offset, [x.size, x.size + 4])
        arrays = [a + part.reshape(a.shape) for a, part in zip((x, v0, v1), parts, strict=True)]
        return np.sum(loss_weights() * evaluate_reference(graph, *arrays, GROUPS))

    with np.errstate(all="ignore"):
        return np.array([(loss(step * d) - loss(-step * d)) / (2 * step) for d in directions])


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, NUM_GRADIENTS, 100))
def test_gradients(start):
    """float64 against finite differences of the oracle where those converge; float32 against float64."""
    chunk = graphs()[start : start + 100]
    program = compiled_gradients(chunk)
    single = jax.device_get(program(*inputs()))
    with jax.enable_x64(True):
        double, *others = [
            jax.device_get(program(*(a.astype(np.float64) for a in arrays)))
            for arrays in [inputs(), *perturbed_inputs()]
        ]
    directions = np.random.default_rng(4).normal(size=(3, flat(inputs()).size))
    smooth = well = 0
    for i, graph in enumerate(chunk):
        gradient = flat(double[i])
        coarse, fine = (finite_differences(graph, directions, step) for step in (2e-5, 1e-5))
        if np.max(np.abs(coarse - fine)) <= 1e-5 * np.max(np.abs(fine)):
            smooth += 1
            assert_close(directions @ gradient, fine + (fine - coarse) / 3, graph)
        if well_conditioned(gradient, [flat(other[i]) for other in others]):
            well += 1
            assert_close(flat(single[i]), gradient, graph)
    assert smooth > 0.8 * len(chunk)
    assert well > 0.8 * len(chunk)
