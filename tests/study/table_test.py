"""Summaries over seeds and the forms of a table."""

import json

import numpy as np
import pytest
from etils import epath

from evonorms_jax.study.table import DASH, LOST, Metric, Table, entry_text, summarize, write

ACCURACY = Metric("test accuracy", "test.accuracy")
DISTANCE = Metric("distance", "frechet.value", lost=None, statistic="median", percent=False, digits=2)
SHARE = Metric("loss not finite", "", lost=1.0, statistic="share", digits=0)


def test_mean_and_sample_deviation():
    assert summarize([0.1, 0.2, 0.6]) == {
        "mean": pytest.approx(0.3),
        "deviation": pytest.approx(0.2645751),  # sqrt((0.04 + 0.01 + 0.09) / 2)
        "number": 3,
    }
    assert summarize([0.5]) == {"mean": 0.5, "deviation": None, "number": 1}
    assert summarize([]) is None


def accuracies(*values):
    """Results by seed: an accuracy, "lost", or None for a training that is not finished."""
    made = {"lost": {LOST: "nan at step 3"}, None: None}
    return {
        seed: made.get(value, {"test": {"accuracy": value}, "frechet": {"value": value}})
        for seed, value in enumerate(values)
    }


@pytest.mark.parametrize(
    ("metric", "values", "text"),
    [
        (ACCURACY, (0.5, 0.7), f"60.0 ± {100 * np.std([0.5, 0.7], ddof=1):.1f}"),
        (ACCURACY, (0.9, "lost"), f"45.0 ± {100 * np.std([0.9, 0], ddof=1):.1f}"),
        (ACCURACY, (0.5, None), "50.0 (1 to come)"),
        (ACCURACY, (None, None), DASH),
        (DISTANCE, (3.0, 9.0, 4.0), "4.00"),
        (DISTANCE, (3.0, "lost", 4.0, None), "3.50 (1 lost, 1 to come)"),
        (DISTANCE, ("lost", "lost"), f"{DASH} (2 lost)"),
        (SHARE, (0.9, "lost", 0.8, 0.7), "25"),
    ],
)
def test_the_text_of_a_cell(metric, values, text):
    entry = metric.entry(accuracies(*values))
    assert entry_text(metric, entry) == text
    assert json.loads(json.dumps(entry)) == entry and list(entry["by_seed"]) == list("0123")[: len(values)]


def test_a_number_that_a_training_does_not_report():
    with pytest.raises(ValueError, match=r"a training has no box.AP; its result has test"):
        Metric("box AP", "box.AP").entry({0: {"test": {"accuracy": 0.5}}})


ROWS = [["BN-ReLU", "91.0", "90.5"], ["GN-ReLU", "1", "2"]]
TABLE = Table(["layer", "resnet_small", "mean"], ROWS, "Notes.")


def test_the_markdown_of_a_table():
    assert TABLE.markdown().splitlines() == [
        "| layer | resnet_small | mean |",
        "| --- | --- | --- |",
        "| BN-ReLU | 91.0 | 90.5 |",
        "| GN-ReLU | 1 | 2 |",
        "",
        "Notes.",
    ]


def test_the_files_of_a_table(tmp_path):
    line = write(
        epath.Path(tmp_path), "name", {"a": 1}, TABLE, lambda results, kind: f"{kind}{results}".encode()
    )
    assert line == f"written to {tmp_path}/name.json, .md, .svg, .png"
    assert json.loads((tmp_path / "name.json").read_text()) == {"a": 1}
    assert (tmp_path / "name.md").read_text() == TABLE.markdown()
    assert (tmp_path / "name.png").read_bytes() == b"png{'a': 1}"


@pytest.mark.parametrize("equation", ["BN-ReLU", "max(v1 * ((x - mean_bwh(x)) / std_bwh(x)) + v0, 0)"])
@pytest.mark.parametrize("count", [3, 12])
def test_no_number_is_cut_off_on_a_terminal(equation, count, monkeypatch, capsys):
    """However long the names of its rows, and however many its columns."""
    monkeypatch.setenv("COLUMNS", "80")
    numbers = [f"{60 + place}.5 ± {place}.1" for place in range(count)]
    header = ["layer", *(f"network_{place}" for place in range(count))]
    Table(header, [[f"`{equation}`" if "(" in equation else equation, *numbers]], "Notes.").show("title")
    shown = capsys.readouterr().out
    assert all(number in shown for number in numbers) and equation in shown and "Notes." in shown
