"""The lineage of a layer: its steps, the pieces of its equations, and long ones cut short."""

from types import SimpleNamespace

import pytest

from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.evolution.records import top_layers
from evonorms_jax.report import lineage
from evonorms_jax.search_space import Graph, mutate


def history(*rows):
    """Records of (equation or graph, index of the parent or None, score or None)."""
    made = History()
    for index, (graph, parent, score) in enumerate(rows):
        graph = Graph.parse(graph) if isinstance(graph, str) else graph
        origin, parents = ("random", ()) if parent is None else ("mutation", (parent,))
        scores = {} if score is None else {"a": score}
        outcome = "low_quality" if score is None else "accepted"
        made.append(Record(index, Proposal(graph, origin, parents), Evaluation(outcome, {}, scores)))
    return made


FAMILY = history(
    ("tanh(x)", None, 0.4),
    ("x / std_wh(x)", None, 0.5),
    ("tanh(x) + 0", 0, None),
    ("x / std_bwh(x)", 1, 0.6),
    ("abs(x) / std_bwh(x)", 3, 0.9),
)


def described(made, top_k=1):
    return lineage.describe(SimpleNamespace(history=made), top_layers(made, top_k))


def test_a_lineage_leads_from_the_first_ancestor_to_the_layer():
    steps = lineage.lineage(FAMILY, 4)
    assert [step.record.index for step in steps] == [1, 3, 4]
    assert steps[0].pieces == [(" ", "x / std_wh(x)")]
    assert steps[1].pieces == [(" ", "x /"), ("-", " std_wh"), ("+", " std_bwh"), (" ", "(x)")]
    assert steps[2].pieces[:1] == [("+", "abs(")]
    assert [step.record.index for step in lineage.lineage(FAMILY, 0)] == [0]


@pytest.mark.parametrize("old", ["x", "x / std_whc/g(x)", "max(v1 * x + v0, 0)", "a + a where a = exp(x)"])
@pytest.mark.parametrize("new", ["x", "abs(x) / std_whc/g(x)", "v0 - x"])
def test_pieces_are_both_equations(old, new):
    pieces = lineage.difference(old, new)
    assert "".join(text for sign, text in pieces if sign != "+") == old
    assert "".join(text for sign, text in pieces if sign != "-").replace(" ", "") == new.replace(" ", "")


def test_changed_nodes_are_named_and_dead_ones_marked():
    parent = Graph([("add", (0, 1)), ("tanh", (0,)), ("mul", (0, 3))])
    child = Graph([("add", (2, 1)), ("tanh", (0,)), ("mul", (5, 3))])
    assert lineage.changed_nodes(parent, child) == [
        "node 4: add(x, 0) -> add(v0, 0) (dead)",
        "node 6: mul(x, v1) -> mul(5, v1)",
    ]


def test_the_text_has_scores_changes_and_the_layers_alike():
    text = described(FAMILY)
    assert text.startswith("#0 abs(x) / std_bwh(x)  (candidate 4, mean 90.0 %)\n")
    assert "1 random   mean 50.0 %" in text and "x /{- std_wh-}{+ std_bwh+}(x)" in text
    copies = history(("x / std_bwh(x)", None, 0.8), ("x / std_bwh(x + v0)", 0, 0.7))
    assert "(candidate 0, mean 80.0 %, 1 more alike)" in described(copies)


def test_steps_that_change_nothing_are_counted_and_a_long_lineage_is_cut(rng):
    graph, rows = Graph.parse("x / std_bwh(x)"), [("x / std_bwh(x)", None, 0.5)]
    for index in range(60):
        graph = mutate(rng, graph)
        rows.append((graph, index, 0.5 + index / 200))
    made = history(*rows)
    (best,) = top_layers(made, 1)[:1]
    text = lineage.describe(SimpleNamespace(history=made), [best])
    shown = [line for line in text.splitlines() if line[4:11].strip().isdigit()]
    assert len(shown) <= lineage.MOST_STEPS + 1
    assert f"not shown: {best.index + 1 - len(shown)} steps, older or without a change" in text
    html = lineage.section(SimpleNamespace(history=made), best)
    assert html.count("<li>") == len(shown) and "<del>" in html and "<ins>" in html


def test_the_page_of_a_layer_without_parents_says_so():
    assert "No parents: random." in lineage.section(
        SimpleNamespace(history=FAMILY), top_layers(history(("tanh(x)", None, 0.4)), 1)[0]
    )
