"""The tests that need no training, on graphs with a known verdict, and the evidence of the others."""

import numpy as np
import pytest
from support.random_graphs import distinct_graphs, renumbered

from evonorms_jax.evolution import rejection
from evonorms_jax.search_space import BASELINES, CATALOG, OPS, Graph, random_graph

KNOWN = CATALOG | BASELINES


@pytest.mark.parametrize("text", ["v1 + 0", "x - x", "x * 0", "std_bwh(v1)", "mean_whc(x - x) + v1"])
def test_what_does_not_depend_on_x_is_inert(text):
    assert rejection.inert(Graph.parse(text))


@pytest.mark.parametrize(
    "text", ["x * v0", "mean_bwh(x) + v1", "x / std_bwh(x)", "tanh(x) * 0 + x", "log(v0 * x)"]
)
def test_what_depends_on_x_once_v_is_trained_is_not_inert(text):
    assert rejection.inert(Graph.parse(text)) is None


def test_what_is_not_finite_on_ordinary_input_is_inert():
    evidence = rejection.inert(Graph.parse("exp(exp(exp(exp(square(x)))))"))
    assert evidence == {"reason": "the output is not finite"}


@pytest.mark.parametrize("name", KNOWN)
def test_published_layers_are_not_inert(name):
    assert rejection.inert(KNOWN[name]) is None


@pytest.mark.parametrize(
    "text",
    ["mean_wh(x)", "std_bwh(x) + v1", "v1 / std_whc/g(x)", "mean_wh(exp(x)) - v0", "x - x + rms_whc(x)"],
)
def test_statistics_without_a_pixel_are_flat(text):
    graph = Graph.parse(text)
    assert rejection.inert(graph) is None
    assert rejection.flat(graph) == {"reason": "the output does not vary over space"}


@pytest.mark.parametrize(
    "text", ["x", "x * v0", "x * exp(-exp(1)) + mean_wh(x)", "exp(exp(exp(exp(square(x)))))"]
)
def test_a_pixel_in_the_output_is_not_flat(text):
    """Nor is an output that is not finite, which is the matter of another test."""
    assert rejection.flat(Graph.parse(text)) is None


@pytest.mark.parametrize("name", KNOWN)
def test_published_layers_are_not_flat(name):
    assert rejection.flat(KNOWN[name]) is None


def test_about_two_thirds_of_random_graphs_are_inert(rng):
    share = np.mean([rejection.inert(random_graph(rng)) is not None for _ in range(600)])
    assert 0.6 < share < 0.78


def test_the_fingerprint_is_that_of_the_function(rng):
    for graph in [*KNOWN.values(), *distinct_graphs(3, 60)]:
        assert rejection.fingerprint(graph) == rejection.fingerprint(renumbered(rng, graph))
    same = [("x + x", "x - (-x)"), ("max(x, -x)", "abs(x)"), ("x * x", "square(x)"), ("exp(0) * x", "x + 0")]
    for one, other in same:
        assert rejection.fingerprint(Graph.parse(one)) == rejection.fingerprint(Graph.parse(other))


def test_different_functions_have_different_fingerprints():
    texts = [*(str(graph) for graph in KNOWN.values()), "x + 0", "x + v0", "x * v1", "x * v0", "abs(x)"]
    texts += [f"{op.name}(x)" for op in OPS.values() if op.kind]
    # The same in training. At inference one remembers a variance and the other two moments.
    texts += ["square(std_bwh(x))", "square(rms_bwh(x)) - square(mean_bwh(x))"]
    marks = {rejection.fingerprint(Graph.parse(text)) for text in texts}
    assert len(marks) == len(texts)


def test_batch_dependence_asks_for_live_aggregations():
    assert rejection.batch_dependent(CATALOG["evonorm_b0"])
    assert rejection.batch_dependent(CATALOG["evonorm_s0"]) is None
    dead = Graph((("std_bwh", (0,)), ("tanh", (0,))))
    assert rejection.batch_dependent(dead) is None


@pytest.mark.parametrize("norm", [2e8, float("inf"), float("nan")])
def test_a_large_or_unfinite_gradient_is_unstable(norm):
    assert rejection.unstable("a", norm, 4, 1e8)["step"] == 4
    assert rejection.unstable("a", 9e7, 4, 1e8) is None


def test_quality_and_divergence():
    assert rejection.low_quality("a", 0.199, 0.2, 100) == {
        "anchor": "a",
        "accuracy": 0.199,
        "threshold": 0.2,
        "step": 100,
    }
    assert rejection.low_quality("a", 0.2, 0.2, 100) is None
    assert rejection.low_quality("a", float("nan"), 0.2, 100) is not None
    assert rejection.diverged("a", float("nan"), 7) is not None
    assert rejection.diverged("a", 0.2, 7) is None
