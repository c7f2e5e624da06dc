"""Summaries over seeds and the forms of a table."""

import itertools
import json

import numpy as np
import pytest
from etils import epath
from matplotlib.figure import Figure

from evonorms_jax.study.table import (
    DASH,
    LOST,
    Metric,
    Table,
    entry_text,
    paired_interval,
    publish,
    summarize,
)

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


def test_a_constant_difference_has_an_interval_of_no_width():
    low, high = paired_interval([3.0, 9.0, 4.0], [1.0, 7.0, 2.0])
    assert low == high == 2.0


def test_the_interval_is_that_of_all_resamples_of_a_few_pairs():
    differences = np.array([-1.0, 2.0, 5.0])
    means = [np.mean(differences[list(drawn)]) for drawn in itertools.product(range(3), repeat=3)]
    expected = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    others = np.array([10.0, 20.0, 30.0])  # far apart: pairing takes their spread out
    assert paired_interval(others + differences, others, level=0.8) == pytest.approx(tuple(expected))
    assert paired_interval(others, others + differences, level=0.8) == pytest.approx(tuple(-expected[::-1]))


def test_the_interval_covers_the_true_difference_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = {}
    for pairs in (3, 40):
        trials = (
            paired_interval(rng.normal(0.5, 1, pairs), np.zeros(pairs), resamples=1000) for _ in range(300)
        )
        covered[pairs] = np.mean([low <= 0.5 <= high for low, high in trials])
    assert 0.91 <= covered[40] <= 0.98
    assert 0.65 <= covered[3] <= 0.85, "too narrow for few pairs, as its docstring says"


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
        (DISTANCE, (3.0, 9.0, 4.0), "4.00 [3.00, 4.00, 9.00]"),
        (DISTANCE, (3.0,), "3.00"),
        (DISTANCE, (3.0, "lost", 4.0, None), "3.50 [3.00, 4.00] (1 lost, 1 to come)"),
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


def test_the_files_of_a_table(tmp_path, capsys):
    results = {"config": {"name": "made up"}}
    publish(epath.Path(tmp_path), "name", results, TABLE, Figure())
    shown = capsys.readouterr().out
    assert f"written to {tmp_path}/name.json, .md, .svg, .png" in shown and "made up" in shown
    assert json.loads((tmp_path / "name.json").read_text()) == results
    assert (tmp_path / "name.md").read_text() == TABLE.markdown()
    assert (tmp_path / "name.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "name.svg").read_bytes()


@pytest.mark.parametrize("equation", ["BN-ReLU", "max(v1 * ((x - mean_bwh(x)) / std_bwh(x)) + v0, 0)"])
@pytest.mark.parametrize("count", [3, 5, 12])
def test_no_number_is_cut_off_on_a_terminal(equation, count, monkeypatch, capsys):
    """However long the names of its rows, and however many its columns."""
    monkeypatch.setenv("COLUMNS", "80")
    numbers = [f"{60 + place}.5 (-1{place}.1 to -4.9)" for place in range(count)]
    header = ["layer", *(f"network_{place}" for place in range(count))]
    Table(header, [[f"`{equation}`" if "(" in equation else equation, *numbers]], "Notes.").show("title")
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines())
    words = set(shown.replace("│", " ").split())
    assert all(words >= set(number.split()) for number in numbers)
    assert equation in shown and "Notes." in shown
