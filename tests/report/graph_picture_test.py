"""Pictures of graphs: the layout keeps its invariants, and every node is drawn."""

import re
from itertools import pairwise

import numpy as np
import pytest

from evonorms_jax.report import graph_picture
from evonorms_jax.report.graph_picture import draw_graph, typeset
from evonorms_jax.report.theme import COLORS
from evonorms_jax.search_space import CATALOG, LEAVES, Graph, random_graph

GRAPHS = [*CATALOG.values(), *(random_graph(np.random.default_rng(seed)) for seed in range(40))]


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_edges_run_to_the_right_and_boxes_do_not_touch(graph):
    plan = graph_picture.layered(graph)
    assert [place.node for place in plan.boxes] == list(range(len(LEAVES) + len(graph.nodes)))
    assert all(place.column == 0 for place in plan.boxes[: len(LEAVES)])
    assert plan.boxes[-1].column == max(place.column for place in plan.boxes)
    inputs = [(i, node) for node, (_, ins) in enumerate(graph.nodes, start=len(LEAVES)) for i in ins]
    assert sorted((e.places[0].node, e.places[-1].node) for e in plan.edges) == sorted(inputs)
    for edge in plan.edges:
        columns = [place.column for place in edge.places]
        assert columns == list(range(columns[0], columns[-1] + 1))
        assert not any(place.is_box for place in edge.places[1:-1])
    assert min(plan.height.values()) >= 0
    for column in {place.column for place in plan.height}:
        places = sorted((p for p in plan.height if p.column == column), key=plan.height.get)
        for above, below in pairwise(places):
            gap = plan.height[below] - plan.height[above]
            assert (
                gap
                >= (graph_picture.BOX_GAP if above.is_box and below.is_box else graph_picture.WAY_GAP) - 1e-6
            )
            assert (
                above.is_box == below.is_box
                or gap >= (graph_picture.BOX_GAP + graph_picture.WAY_GAP) / 2 - 1e-6
            )


def test_the_numerator_ends_above_the_denominator():
    for equation in ("x / v1", "v1 / x", "tanh(x) / (x + v1)", "(x + v1) / tanh(x)"):
        graph = Graph.parse(equation, num_nodes=None)
        plan = graph_picture.layered(graph)
        ports = {edge.places[0].node: edge.port for edge in plan.edges if edge.places[-1] == plan.boxes[-1]}
        numerator, denominator = graph.nodes[-1].inputs
        assert (ports[numerator], ports[denominator]) == (-1, 1)


def test_free_inputs_are_put_in_order():
    graph = Graph.parse("max(std_bwh(x), v1 * x + std_wh(x))")
    plan = graph_picture.layered(graph)
    for target in plan.boxes:
        ends = [edge for edge in plan.edges if edge.places[-1] == target and edge.port]
        heights = [plan.height[edge.places[-2]] for edge in sorted(ends, key=lambda edge: edge.port)]
        assert heights == sorted(heights)


def test_the_layout_of_a_published_layer_has_no_crossing():
    plan = graph_picture.layered(CATALOG["evonorm_s0"])
    live = set(CATALOG["evonorm_s0"].live_nodes)
    lines = {step for edge in plan.edges if edge.places[-1].node in live for step in pairwise(edge.places)}
    for a, b in lines:
        for c, d in lines:
            if a.column == c.column:
                assert (plan.height[a] - plan.height[c]) * (plan.height[b] - plan.height[d]) >= 0


@pytest.mark.parametrize("graph", GRAPHS[:16], ids=str)
def test_all_nodes_are_drawn_and_dead_ones_are_dashed(graph):
    picture = draw_graph(graph)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", picture)
    names = [*LEAVES, *(op for op, _ in graph.nodes)]
    numbers = map(str, range(len(names)))
    assert sorted(texts) == sorted([*names, *numbers, "y"])
    dead = len(names) - len(graph.live_nodes)
    color = r"(var\(--\w+\))"
    boxes = re.findall(rf'style="fill: {color}; (stroke-dasharray)?[^"]*stroke: {color}', picture)
    boxes = [box for box in boxes if box[0] in ("var(--leaf)", "var(--moment)", "var(--card)")]
    assert len(boxes) == len(names)
    assert sum(bool(dashed) for _, dashed, _ in boxes) == dead
    assert sum(stroke == "var(--dead)" for _, _, stroke in boxes) == dead
    assert sum(stroke == "var(--accent)" for _, _, stroke in boxes) == 1


def test_equations_are_typeset_as_outlines():
    for graph in [*CATALOG.values(), *GRAPHS[:12]]:
        picture = typeset(graph)
        assert picture is not None, graph.latex()
        assert "<path" in picture and "<text" not in picture
        assert not set(re.findall(r"#[0-9a-f]{6}\b", picture)) & {color for color, _ in COLORS.values()}


def test_an_endless_equation_stays_text():
    nodes = [("tanh", (0,))] + [("mul", (i, i)) for i in range(4, 13)]
    assert typeset(Graph(tuple(nodes))) is None
