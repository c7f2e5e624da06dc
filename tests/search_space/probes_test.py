"""Likeness of layers: the same function, and outputs that agree to 1 %."""

import numpy as np
import pytest

from evonorms_jax.search_space import BASELINES, CATALOG, Graph
from evonorms_jax.search_space.probes import clusters, difference, nearest, same_function


def graphs(*equations):
    return [Graph.parse(equation) for equation in equations]


def test_the_same_function_is_found_in_training_and_at_inference():
    assert same_function(*graphs("x / std_wh(x)", "x / std_wh(x + v0)"))
    assert not same_function(*graphs("x", "x + std_wh(0)"))
    # In training one is the other. At inference a mean of variances is not the variance of mean moments.
    assert not same_function(*graphs("std_bwh(x) * x", "sqrt(mean_bwh(square(x - mean_bwh(x)))) * x"))


def test_values_that_are_not_finite_must_agree():
    huge = "exp(exp(exp(exp(square(x)))))"
    assert same_function(*graphs(huge, f"{huge} + 0"))
    assert not same_function(*graphs(huge, f"-{huge}"))
    assert difference(*graphs(huge, huge)) == np.inf


def test_the_difference_is_relative_to_the_output():
    assert difference(*graphs("x", "x")) == 0
    assert difference(*graphs("x", "x + x")) == pytest.approx(1)
    assert difference(*graphs("x + x", "x")) == pytest.approx(0.5)
    # The start values hide this difference, which training shows.
    assert difference(*graphs("x", "x * v1")) > 0.5


def test_near_copies_form_a_cluster_with_the_best_first():
    made = graphs("abs(x) / std_bwh(x)", "x", "abs(x) / std_bwh(x + std_wh(0))", "x + std_wh(0)", "tanh(x)")
    assert clusters(made) == [[0, 2], [1, 3], [4]]
    assert clusters(made, most=1) == [[0, 2]]
    assert clusters(made, most=1, always={3, 4}) == [[0, 2], [3], [4]]
    assert clusters(graphs("exp(exp(exp(exp(square(x)))))") * 2) == [[0], [1]], "no output to compare"


def test_the_nearest_known_layer():
    known = BASELINES | CATALOG
    for name, graph in known.items():
        assert nearest(graph, known) == (name, 0)
    near = Graph.parse("max(v1 * (x - mean_bwh(x)) / std_bwh(x) + v0, 0) + std_wh(0)")
    name, distance = nearest(near, known)
    assert name == "bn_relu" and 0 < distance < 0.01
