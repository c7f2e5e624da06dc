"""Examinations: inputs of all kinds, verdicts as those of a search, answers to wrong lines, text."""

import json

import pytest
from support import one_block

from evonorms_jax.evolution.history import History
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.layers import layer_file
from evonorms_jax.search_space import CATALOG, Graph
from evonorms_jax.search_space.text import EquationError
from evonorms_jax.study import examination, examination_text
from evonorms_jax.study.examination import Examiner, Layer, answers, describe, read_layer, read_line

one_block_config = one_block.config


# -- Inputs


def test_a_layer_is_an_equation_a_name_or_a_file(tmp_path):
    path = tmp_path / "top_layers.json"
    path.write_text(layer_file([{"graph": CATALOG[name].to_json()} for name in ("evonorm_b0", "evonorm_s0")]))
    assert read_layer(f"{path}#1").graph == CATALOG["evonorm_s0"]
    assert read_layer(" evonorm_b0 ") == Layer("evonorm_b0", CATALOG["evonorm_b0"])
    assert read_layer("x / std_wh(x)").graph == Graph.parse("x / std_wh(x)", num_nodes=None)


@pytest.mark.parametrize(
    "row",
    [
        "x / std_wh(x)",
        {"equation": "x / std_wh(x)"},
        {"graph": Graph.parse("x / std_wh(x)").to_json(), "equation": "x / std_wh(x)", "index": 7},
    ],
)
def test_a_line_is_a_text_or_an_object(row):
    layer = read_line(json.dumps(row))
    assert layer.name == "x / std_wh(x)"
    assert layer.graph.canonical == Graph.parse("x / std_wh(x)").canonical


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x / std_wh(x)", "not a JSON line: 'x / std_wh(x)'"),
        ("[1]", "a line must be a text, or an object with a graph or an equation"),
        ("{}", "a line must be a text"),
        ('{"graph": 1}', "not a graph"),
        ('" "', "a layer must be an equation, a name or file.json#0, got an empty text"),
        (json.dumps("x" + " + tanh(x + v0 * x)" + " + exp(x)" * 9), "a search has at most 10"),
        ('"runs/none.json#0"', "cannot read the layer file"),
    ],
)
def test_a_wrong_line_is_named(line, message):
    with pytest.raises(ValueError, match=r".") as caught:
        read_line(line)
    assert message in str(caught.value)


def test_a_wrong_equation_is_answered_with_its_position():
    with pytest.raises(EquationError) as caught:
        read_line('"x * sigmod(x)"')
    answer = examination.error_line("x * sigmod(x)", caught.value)
    assert answer["position"] == 4 and "did you mean 'sigmoid'" in answer["error"]
    assert "error: in 'x * sigmod(x)'" in examination_text.block(3, answer)
    assert "position" not in examination.error_line("{}", ValueError("no layer"))


# -- Without training


def test_a_description_knows_the_function():
    row = describe(read_layer("max(0, v1 * (x - mean_bwh(x)) / std_bwh(x) + v0)"))
    assert row["simplified"] == "max(v1 * (x - mean_bwh(x)) / std_bwh(x) + v0, 0)"
    assert row["nearest"]["name"] == "bn_relu" and row["nearest"]["difference"] < 1e-6
    assert row["batch_dependent"] and row["inert"] is None and row["flat"] is None
    assert row["cost"]["passes"] == 8 and row["cost"]["inference"] == 2 and row["cost"]["parameters"] == 4
    assert describe(read_layer("x * 0"))["inert"] and describe(read_layer("mean_wh(x)"))["flat"]
    json.dumps(describe(read_layer("exp(exp(exp(exp(square(x)))))")), allow_nan=False)


# -- With training


def test_verdicts_are_those_of_a_search(one_block_config):
    config = one_block_config
    config.rejection.allow_flat = False
    texts = ["evonorm_b0", "x * 0", "mean_wh(x)", "x * exp(square(x) * exp(square(x)))"]
    # The search of the config does not have the op of the last layer.
    lines = [json.dumps(texts[2]), "nonsense", json.dumps(texts[3]), '"lnc_relu"']
    examiner = Examiner(config, replicas=2)
    rows = [
        row for rows in answers(examiner, [read_layer(text) for text in texts[:2]], [lines]) for row in rows
    ]
    assert "error" in rows.pop(3)
    of_a_position = rows.pop()
    assert of_a_position["nearest"] == {"name": "lnc_relu", "difference": 0.0}
    assert of_a_position["outcome"] == "accepted" and of_a_position["mean"] > 0.2
    evaluations = make_evaluator(config).examine([read_layer(text).graph for text in texts], History())
    assert [row["outcome"] for row in rows] == [evaluation.outcome for evaluation in evaluations]
    assert [row["outcome"] for row in rows[:3]] == ["accepted", "inert", "flat"]
    accepted = rows[0]
    assert accepted["steps"][-1] == config.proxy.steps
    (scores,) = accepted["curves"].values()
    assert len(scores) == 2 and scores[0] != scores[1], "two seeds"
    assert scores[0][-1] == pytest.approx(evaluations[0].scores["one_block"])
    assert accepted["mean"] == pytest.approx((scores[0][-1] + scores[1][-1]) / 2)
    json.dumps(rows, allow_nan=False)
    text = examination_text.block(0, accepted)
    assert "EvoNorm-B0, the same function" in text and "over 2 seeds" in text and "8 passes over x" in text
    assert "32 bytes a number in float32" in text
    assert "rejected as flat: reason the output does not vary over space" in examination_text.block(
        2, rows[2]
    )
