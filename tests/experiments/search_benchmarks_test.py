"""The benchmarks that run searches or their tests: rates, successes, and sizes, on made-up evaluations."""

import io

import numpy as np
import pytest
from rich.console import Console
from support import one_block
from support.search_configs import quick

from evonorms_jax.evolution.history import Evaluation
from experiments.benchmarks import false_rejections, search_scale, search_seeds

config = one_block.config


def test_the_rates_of_the_early_tests_by_hand():
    def row(outcome, flat, early):
        return {"equation": outcome, "outcome": outcome, "flat": flat, "early": early}

    rows = [
        row("accepted", False, [0.30]),
        row("accepted", False, [0.105]),
        row("accepted", True, [0.2]),
        row("low_quality", False, [0.1]),
        row("low_quality", False, [0.2]),
        row("low_quality", True, [0.1]),
        row("unstable", False, None),
    ]
    flat, *hurdles = false_rejections.rates(rows, [25], 0.1)
    assert (flat["saved"], flat["bad"], flat["lost"], flat["good"]) == (1, 4, 1, 3)
    by_name = {rate["test"]: (rate["saved"], rate["bad"], rate["lost"], rate["good"]) for rate in hurdles}
    assert by_name["25 steps, 1.01 x chance"] == (1, 2, 0, 2)
    assert by_name["25 steps, 1.1 x chance"] == (1, 2, 1, 2)


@pytest.mark.exhaustive
def test_a_sample_goes_through_all_tests_and_the_early_ones_are_applied_afterwards(config):
    measured = false_rejections.measure(config, random=0, mutated=9)
    assert measured["drawn"]["trained"] == len(measured["candidates"]) > 1
    outcomes = {row["outcome"] for row in measured["candidates"]}
    assert "accepted" in outcomes and not outcomes & {"inert", "flat", "duplicate"}
    for row in measured["candidates"]:
        assert (row["early"] is None) == (row["outcome"] == "unstable")
    assert {rate["test"] for rate in measured["rates"]} >= {"flat", "25 steps, 1.1 x chance"}


def test_a_layer_succeeds_if_it_beats_every_known_one_on_both_parts():
    known = {"searched": [0.5, 0.52, 0.49], "held_out": [0.6, 0.61, 0.6]}
    scores = {"bn_relu": known, "evonorm_b0": known}
    better = {"searched": [0.6, 0.63, 0.58], "held_out": [0.7, 0.7, 0.71]}
    assert search_seeds.compared(better, scores, list(scores))["succeeds"]
    low, high = search_seeds.compared(better, scores, ["bn_relu"])["gains"]["searched"]["bn_relu"]
    assert 0.08 < low <= np.mean([0.1, 0.11, 0.09]) <= high < 0.12
    level = better | {"held_out": known["held_out"]}
    assert not search_seeds.compared(level, scores, list(scores))["succeeds"]


def test_the_table_has_a_row_for_each_gain_and_fits_a_terminal():
    known = {"searched": [0.5, 0.52], "held_out": [0.6, 0.61]}
    scores = dict.fromkeys(("lnc", "rms", "dyt", "derf"), known)
    mine = {"searched": [0.6, 0.63], "held_out": [0.7, 0.7]}
    row = {"seed": 3, "wall_seconds": 90.0, "equation": "x / rms_c(x)"}
    measured = {
        "against": {name: {"equation": name, **known} for name in scores},
        "searches": [row | search_seeds.compared(mine, scores, list(scores))],
        "held_out": "vit_digits",
        "successes": 0,
    }
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(search_seeds.table(measured))
    text = console.export_text()
    assert all(f"over {title} " in text for title in ("LN(C)", "RMSNorm", "DyT", "Derf"))
    assert "seed 3, 1.5 min" in text and "\N{HORIZONTAL ELLIPSIS}" not in text


def test_every_outcome_of_a_made_up_search_is_counted_and_its_files_are_measured(tmp_path):
    config = quick()
    config.evolution.round_size = 64
    measured = search_scale.measure(config, str(tmp_path), [640])
    (row,) = measured["rows"]
    assert row["candidates"] == 640 and row["log"] > 640 * 100 and row["page"] > 10_000
    assert not (tmp_path / "search-640").exists()


def test_made_up_evaluations_have_the_shares_of_a_search():
    made = search_scale.Made(0, ("a", "b"))
    evaluations = made.examine([None] * 20_000, [])
    shares = {name: sum(e.outcome == name for e in evaluations) / 20_000 for name in search_scale.SHARES}
    assert shares == pytest.approx(search_scale.SHARES, abs=0.01)
    assert all(isinstance(e, Evaluation) and bool(e.scores) == (e.outcome == "accepted") for e in evaluations)
