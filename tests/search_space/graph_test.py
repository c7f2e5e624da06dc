"""The genotype: validation, live nodes, canonical form, JSON."""

import json

import numpy as np
import pytest
from support.random_graphs import distinct_graphs, renumbered

from evonorms_jax.search_space import CATALOG, OPS, Graph, Node, evaluate_reference, random_graph

# x / std_bwh(x), with a dead exp of the constant between the two live nodes.
SMALL = Graph((("std_bwh", (0,)), ("exp", (1,)), ("div", (0, 4))))


def test_nodes_become_tuples_and_the_graph_is_hashable_and_frozen():
    from_lists = Graph([["std_bwh", [0]], ["exp", [1]], ["div", [0, 4]]])
    assert from_lists == SMALL
    assert hash(from_lists) == hash(SMALL)
    assert SMALL.nodes[2] == Node("div", (0, 4))
    with pytest.raises(AttributeError):
        SMALL.nodes = ()


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "at least one intermediate node, got none"),
        ([("sigmod", (0,))], r"node 4: unknown op 'sigmod'; did you mean 'sigmoid'\?"),
        ([("std_bhw", (0,))], r"node 4: unknown op 'std_bhw'; did you mean 'std_bwh'\?"),
        ([("qqq", (0,))], "node 4: unknown op 'qqq'; known ops: add, mul, .*"),
        ([(None, (0,))], "node 4: unknown op None; known ops: add, mul, .*"),
        ([("add", (0,))], r"node 4: add takes 2 input\(s\), got \[0\]"),
        ([("exp", (0, 1))], r"node 4: exp takes 1 input\(s\), got \[0, 1\]"),
        ([("exp", (4,))], "node 4: an input must be one of 0 to 3, got 4"),
        ([("exp", (0,)), ("add", (4, 6))], "node 5: an input must be one of 0 to 4, got 6"),
        ([("exp", (-1,))], "node 4: an input must be one of 0 to 3, got -1"),
        ([("exp", (0.0,))], "node 4: an input must be one of 0 to 3, got 0.0"),
        ([("exp", (True,))], "node 4: an input must be one of 0 to 3, got True"),
    ],
)
def test_invalid_graphs_are_refused_in_one_line(nodes, message):
    with pytest.raises(ValueError, match=message + "$") as error:
        Graph(nodes)
    assert "\n" not in str(error.value)


def test_live_nodes():
    assert SMALL.live_nodes == (0, 4, 6)
    assert SMALL.uses_input
    assert Graph([("exp", (0,)), ("add", (2, 3))]).live_nodes == (2, 3, 5)
    assert not Graph([("exp", (0,)), ("add", (2, 3))]).uses_input


def test_a_node_is_live_exactly_if_breaking_it_can_be_noticed(rng):
    """Liveness against its meaning: what the output's ancestors are, found by walking up from it."""
    for _ in range(200):
        graph = random_graph(rng)
        ancestors, frontier = set(), {13}
        while frontier:
            ancestors |= frontier
            frontier = {i for n in frontier if n >= 4 for i in graph.nodes[n - 4].inputs} - ancestors
        assert set(graph.live_nodes) == ancestors


def test_batch_dependent_looks_at_live_nodes_only():
    assert SMALL.batch_dependent
    dead = Graph((("std_bwh", (0,)), ("exp", (0,))))
    assert not dead.batch_dependent
    for op in OPS:
        inputs = (0, 0)[: 2 if op in ("add", "mul", "div", "max") else 1]
        assert Graph([(op, inputs)]).batch_dependent == op.endswith("_bwh")


def test_canonical_form_ignores_dead_nodes_order_and_repetition():
    equal = [
        "max(x + v0, exp(x)) * v1",
        "max(exp(x), x + v0) * v1",
        "v1 * max(v0 + x, exp(x))",
        "v1 * max(a, exp(x)) where a = v0 + x",
    ]
    assert len({Graph.parse(text, size).canonical for text in equal for size in (None, 10)}) == 1
    # Twice the same node against one node used twice.
    twice = Graph([("exp", (0,)), ("exp", (0,)), ("add", (4, 5))])
    assert twice.canonical == Graph([("exp", (0,)), ("add", (4, 4))])


def test_canonical_form_keeps_what_matters():
    different = ["x / v1", "v1 / x", "x * v1", "x + v1", "x + v0", "x - v1", "-x + v1", "max(x, v1)"]
    different += ["std_wh(x)", "rms_wh(x)", "std_whc(x)", "exp(exp(x))", "exp(x)"]
    assert len({Graph.parse(text).canonical for text in different}) == len(different)
    # Both orders of a division in one graph: not equal sub-expressions.
    assert len(Graph.parse("x / v1 + v1 / x").canonical.nodes) == 3


def test_canonical_form_does_not_depend_on_how_a_graph_is_written(rng):
    for _ in range(1000):
        graph = random_graph(rng)
        canonical = graph.canonical
        assert renumbered(rng, graph).canonical == canonical
        assert canonical.canonical == canonical
        padded = [("add", (0, 1)), ("exp", (2,))]
        shifted = [(op, [i + 2 * (i >= 4) for i in inputs]) for op, inputs in graph.nodes]
        assert Graph(padded + shifted).canonical == canonical


def test_canonical_form_computes_the_same_function(rng):
    x = rng.normal(0.3, 1, (2, 3, 2, 4))
    v0, v1 = rng.normal(0, 0.5, (2, 4))
    for graph in distinct_graphs(1, 300):
        own = evaluate_reference(graph, x, v0, v1, groups=2)
        np.testing.assert_array_equal(evaluate_reference(graph.canonical, x, v0, v1, groups=2), own)
        assert len(graph.canonical.nodes) <= sum(i >= 4 for i in graph.live_nodes)


def test_json_round_trip(rng):
    for graph in [SMALL, *CATALOG.values(), *(random_graph(rng, n) for n in (1, 10, 30))]:
        text = json.dumps(graph.to_json())
        assert Graph.from_json(json.loads(text)) == graph
    assert SMALL.to_json() == {
        "schema": 1,
        "nodes": [["std_bwh", [0]], ["exp", [1]], ["div", [0, 4]]],
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], r"not a graph: expected an object with 'nodes', got '\[\]'"),
        ("nodes", "not a graph: expected an object with 'nodes', got 'nodes'"),
        (None, "not a graph: expected an object with 'nodes', got 'None'"),
        ({"schema": 1}, "not a graph: expected an object with 'nodes', got .*"),
        ({"schema": 1, "nodes": {"add": [0, 1]}}, "not a graph: expected an object with 'nodes', got .*"),
        ({"nodes": [["exp", [0]]]}, "the graph names no schema version: expected 'schema': 1, got None"),
        ({"schema": "1", "nodes": []}, "the graph names no schema version: .* got '1'"),
        ({"schema": 0, "nodes": []}, "the graph names no schema version: .* got 0"),
        ({"schema": 2, "nodes": []}, "the graph has schema 2, this version reads up to 1: update .*"),
        ({"schema": 1, "nodes": []}, "a graph needs at least one intermediate node, got none"),
        ({"schema": 1, "nodes": [5]}, r"each node is \[op, inputs\], got \[5\]"),
        ({"schema": 1, "nodes": [["exp"]]}, r"each node is \[op, inputs\], got \[\['exp'\]\]"),
        ({"schema": 1, "nodes": [["exp", 0]]}, r"each node is \[op, inputs\], got \[\['exp', 0\]\]"),
        ({"schema": 1, "nodes": [["exp", "0"]]}, "an input must be one of 0 to 3, got '0'"),
        ({"schema": 1, "nodes": [["exp", [None]]]}, "an input must be one of 0 to 3, got None"),
        ({"schema": 1, "nodes": [[["exp"], [0]]]}, r"unknown op \['exp'\]; did you mean 'exp'\?"),
        ({"schema": 1, "nodes": [["expp", [0]]]}, "unknown op 'expp'; did you mean 'exp'?"),
    ],
)
def test_damaged_json_is_refused_in_one_line(data, message):
    with pytest.raises(ValueError, match=message) as error:
        Graph.from_json(data)
    assert "\n" not in str(error.value)


def test_a_cut_or_bent_file_never_gives_another_kind_of_error(rng):
    """Any value of a sound file replaced by junk either still makes a graph or raises ValueError."""
    junk = [None, -1, 99, 1.5, True, "", "exp", [], [0], {}, [["exp", [0]]]]
    for _ in range(300):
        data = random_graph(rng).to_json()
        where = data["nodes"] if rng.random() < 0.5 else data["nodes"][rng.integers(10)]
        where[rng.integers(len(where))] = junk[rng.integers(len(junk))]
        try:
            Graph.from_json(data)
        except ValueError as error:
            assert "\n" not in str(error)
