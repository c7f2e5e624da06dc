"""Simplified equations: identities by hand, and many random graphs, which stay the functions they are."""

import numpy as np
import pytest
from support.random_graphs import distinct_graphs, renumbered

from evonorms_jax.evolution import rejection
from evonorms_jax.search_space import BASELINES, CATALOG, Graph, evaluate_reference
from evonorms_jax.search_space.simplify import readable, simplify


@pytest.mark.parametrize(
    ("equation", "simplified"),
    [
        # Constants.
        ("x + tanh(0)", "x"),
        ("x * (sigmoid(0) + sigmoid(0))", "x"),
        ("x + std_bwh(0)", "x + std_wh(0)"),
        ("x / rms_whc(log(0))", "x / std_wh(0)"),
        # Moments of vectors per channel.
        ("mean_wh(v0) * x", "v0 * x"),
        ("x + mean_bwh(v0)", "x + v0"),
        ("x + std_wh(v0)", "x + std_wh(0)"),
        ("x * mean_whc(v0)", "x * mean_whc(v0)"),
        ("x * std_whc/g(v0)", "x * std_whc/g(v0)"),
        ("x * std_wh(std_whc(x))", "x * std_wh(0)"),
        # Moments of moments and of shifted tensors.
        ("mean_bwh(mean_wh(x)) / x", "mean_bwh(x) / x"),
        ("x / std_wh(x + v0)", "x / std_wh(x)"),
        ("x / std_whc(x + v0)", "x / std_whc(x + v0)"),
        ("x / std_bwh(-x)", "x / std_bwh(x)"),
        # Signs and order.
        ("-(-x)", "x"),
        ("0 - x", "-x"),
        ("-(v0 - x)", "x - v0"),
        ("x - -v0", "x + v0"),
        ("-x * -v1", "v1 * x"),
        ("-mean_whc/g(x) + x", "x - mean_whc/g(x)"),
        ("v0 + x * v1", "v1 * x + v0"),
        ("max(0, x)", "max(x, 0)"),
        # One op for several.
        ("max(x, -x)", "abs(x)"),
        ("x * x", "square(x)"),
        ("sqrt(square(x))", "abs(x)"),
        ("x / (1 / v1)", "v1 * x"),
        ("(x + v0) - x", "v0"),
        ("square(abs(x))", "square(x)"),
        # A layer that has no shorter spelling.
        ("abs(x) / std_bwh(abs(x) + abs(x))", "abs(x) / std_bwh(abs(x) + abs(x))"),
        ("x * rms_wh(v0)", "x * rms_wh(v0)"),
        # The first operand wins where the scales of the channels differ much.
        ("max(rms_bwh(x), mean_whc(std_wh(x)))", "max(rms_bwh(x), mean_whc(std_wh(x)))"),
        (
            "max(rms_bwh(x), mean_whc(std_whc/g(std_wh(x))))",
            "max(rms_bwh(x), mean_whc(std_whc/g(std_wh(x))))",
        ),
    ],
)
def test_identities(equation, simplified):
    assert readable(Graph.parse(equation)) == simplified


def test_published_layers_keep_their_parts():
    for graph in (BASELINES | CATALOG).values():
        made = simplify(graph)
        assert sorted(op for op, _ in made.nodes) == sorted(op for op, _ in graph.canonical.nodes)
        assert rejection.fingerprint(made) == rejection.fingerprint(graph)


def check(graphs):
    """Each simplified equation is read back, and computes the function on probes that nobody else uses."""
    shorter = 0
    rng = np.random.default_rng(7)
    for graph in graphs:
        made, text = simplify(graph), readable(graph)
        read = Graph.parse(text)
        assert simplify(read) == made, text
        assert len(made.nodes) <= len(graph.canonical.nodes)
        shorter += len(made.nodes) < len(graph.canonical.nodes)
        if rejection.inert(graph) is None:
            assert rejection.fingerprint(read) == rejection.fingerprint(graph), (str(graph), text)
        x, (v0, v1) = rng.normal(0.3, 1, (2, 3, 2, 6)), rng.normal(size=(2, 6))
        expected, found = (evaluate_reference(g, x, v0, v1, groups=3) for g in (graph, read))
        size = np.abs(expected[np.isfinite(expected)]).max(initial=0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * size, err_msg=f"{graph} as {text}")
    return shorter


def test_random_graphs_stay_the_functions_they_are():
    graphs = distinct_graphs(seed=3, count=400)
    assert check(graphs) > 40, "many are shorter"


@pytest.mark.exhaustive
def test_many_random_graphs_stay_the_functions_they_are():
    check(distinct_graphs(seed=4, count=5000))


def test_spellings_of_one_function_become_one(rng):
    for graph in distinct_graphs(seed=5, count=30):
        assert readable(renumbered(rng, graph)) == readable(graph)
