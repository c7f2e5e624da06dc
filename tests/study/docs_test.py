"""The results in docs/ give their tables and figures again, with the same numbers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from evonorms_jax.report.picture import as_file
from evonorms_jax.study import comparison, figures, rerank, transfer

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "results.md").read_text()


def read(name):
    return json.loads((DOCS / f"{name}.json").read_text())


def accuracy(values):
    return f"{100 * np.mean(values):.1f} ± {100 * np.std(values, ddof=1):.1f}"


@pytest.mark.parametrize("name", ["transfer", "batch_size"])
def test_every_cell_of_a_table_is_the_mean_of_its_seeds(name):
    results = read(name)
    table = transfer.make_table(results)
    assert table.header == ["layer", *next(iter(results["rows"].values()))]
    for row, (title, entries) in zip(table.rows, results["rows"].items(), strict=True):
        assert row == [title, *(accuracy(list(entry["by_seed"].values())) for entry in entries.values())]
    assert as_file(figures.draw_table(results), "png").startswith(b"\x89PNG")


def test_the_comparison_has_the_means_of_its_searches():
    results = read("compare_methods")
    table = comparison.make_table(results)
    held_out = results["config"]["retraining"]["held_out_anchor"]
    for row, method in zip(table.rows, results["methods"], strict=False):
        scores = [list(run["test"]["by_seed"].values()) for run in method["runs"]]
        searched = [
            np.mean([[score for anchor, score in seed.items() if anchor != held_out] for seed in run])
            for run in scores
        ]
        assert row[:3] == [
            method["title"],
            accuracy(searched),
            accuracy([np.mean([seed[held_out] for seed in run]) for run in scores]),
        ]
    assert as_file(figures.draw_comparison(results), "png").startswith(b"\x89PNG")


def test_the_ranking_is_in_order_of_the_means():
    results = read("rerank")
    rows = rerank.make_table(results).rows
    for row, layer in zip(rows, results["layers"], strict=True):
        validation = [100 * value for value in layer["validation"].values()]
        assert row[1:5] == [f"{value:.1f}" for value in [*validation, np.mean(validation)]]
    means = [float(row[4]) for row in rows]
    assert means == sorted(means, reverse=True)


@pytest.mark.parametrize(
    ("name", "module"),
    [("transfer", transfer), ("compare_methods", comparison), ("rerank", rerank), ("batch_size", transfer)],
)
def test_the_page_of_results_has_the_rows_of_the_table(name, module):
    """At least the layers that it shows, of which it may leave some out."""
    on_page = [set(re.findall(r"\d+\.\d ± \d+\.\d|\b\d+\.\d\b", line)) for line in PAGE.splitlines()]
    for row in module.make_table(read(name)).rows[:2]:
        numbers = set(row[1 : 5 if module is rerank else 3])
        assert any(numbers <= {*line} for line in on_page), row


@pytest.mark.parametrize(
    ("name", "draw"), [("compare_methods", figures.draw_comparison), ("batch_size", figures.draw_table)]
)
def test_a_figure_drawn_again_is_the_same_file(name, draw):
    first, second = (as_file(draw(read(name)), "svg") for _ in range(2))
    assert first == second
