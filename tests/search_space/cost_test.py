"""The analytic cost of layers: passes by hand, and parameters and state as the real layer has them."""

import jax
import pytest
from support.random_graphs import distinct_graphs

from evonorms_jax.search_space import CATALOG, KNOWN, Graph, compile_graph
from evonorms_jax.search_space.cost import layer_cost


@pytest.mark.parametrize(
    "name", ["bn_relu", "gn_relu", "evonorm_b0", "evonorm_s0", "evonorm_s2", "rms", "rms_relu"]
)
def test_a_layer_with_one_round_of_moments_has_eight_passes(name):
    cost = layer_cost(KNOWN[name])
    assert (cost.forward, cost.backward, cost.passes) == (3, 5, 8)
    assert cost.bytes(32, 56 * 56, 64, itemsize=2) == 8 * 2 * 32 * 56 * 56 * 64


@pytest.mark.parametrize(
    ("equation", "forward", "backward", "statistics", "operations"),
    [
        ("max(x, 0)", 2, 3, 0, 1),
        ("x / max(std_bwh(x), std_wh(x))", 3, 5, 2, 1),
        ("x / std_wh(x - mean_bwh(x))", 4, 7, 2, 2),  # a round after a round
        ("x / std_bwh(mean_wh(x))", 3, 5, 1, 1),  # a moment of a small array is free
        ("x * std_whc(v0)", 2, 3, 0, 1),
        ("mean_wh(x) + v0", 2, 5, 1, 0),  # y is written without another look at x
        ("x * std_wh(x) * std_wh(x)", 3, 5, 1, 2),
        ("erf(v1 * x + v0)", 2, 3, 0, 3),
        ("x / rms_c(x)", 3, 5, 1, 1),
        ("x / std_wh(rms_c(x))", 3, 5, 1, 1),  # a moment of a C-th of x
        ("(x - mean_c(x)) / std_c(x)", 4, 5, 2, 2),  # the mean comes before the deviation
        ("x / (std_c(x) + std_wh(x))", 4, 5, 2, 1),
    ],
)
def test_passes_by_hand(equation, forward, backward, statistics, operations):
    cost = layer_cost(Graph.parse(equation))
    assert (cost.forward, cost.backward, cost.statistics) == (forward, backward, statistics)
    assert cost.operations == operations


@pytest.mark.parametrize(
    ("equation", "inference"),
    [
        ("max((x - mean_bwh(x)) / std_bwh(x), 0)", 2),  # statistics of the batch are known
        ("x / max(std_bwh(x), std_wh(x))", 3),
        ("x / std_wh(x - mean_bwh(x))", 3),
        ("x / std_bwh(x - mean_wh(x))", 2),
        ("(x - mean_c(x)) / std_c(x)", 4),
        ("std_bwh(x)", 1),
    ],
)
def test_passes_at_inference(equation, inference):
    assert layer_cost(Graph.parse(equation)).inference == inference


def test_the_numbers_in_files():
    cost = layer_cost(CATALOG["evonorm_b0"])
    assert cost.to_json() == {
        "passes": 8,
        "bytes_per_element": 32,
        "forward": 3,
        "backward": 5,
        "inference": 3,
        "statistics": 2,
        "state": 1,
        "parameters": 3,
        "operations": 4,
    }


def test_parameters_and_state_are_those_of_the_compiled_layer():
    for graph in [*KNOWN.values(), *distinct_graphs(seed=6, count=60)]:
        params, stats = jax.eval_shape(lambda layer=compile_graph(graph): layer.init(8))
        cost = layer_cost(graph)
        assert cost.parameters == 2 + len(params), str(graph)
        assert cost.state == len(stats), str(graph)
