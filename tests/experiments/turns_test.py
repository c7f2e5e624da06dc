"""Trainings that take turns. Times are never asserted."""

import math

import pytest

from experiments.benchmarks import turns


class Side:
    """A training that notes its calls."""

    def __init__(self, name, calls, loss=1.0):
        self.name, self.calls, self.loss = name, calls, loss

    def run(self, steps):
        self.calls.append((self.name, steps))
        return {"loss": self.loss}


def test_the_sides_take_turns_after_the_warm_up():
    calls = []
    sides = {name: Side(name, calls) for name in "ab"}
    timed = turns.time_by_turns(sides, warmup=3, rounds=2, steps=4)
    assert calls == [("a", 3), ("b", 3), *2 * [("a", 4), ("b", 4)]]
    assert all(len(each.milliseconds) == 2 and each.losses == {"loss": 1.0} for each in timed.values())


def test_a_row_has_the_median_the_spread_and_the_ratio_to_the_first_side():
    timed = {"a": turns.Timed([4.0, 1.0, 2.0], {"loss": 5.0}), "b": turns.Timed([3.0, 3.0, 9.0], {})}
    assert turns.rows(timed) == [
        {"side": "a", "milliseconds": 2.0, "least": 1.0, "largest": 4.0, "ratio": 1.0, "loss": 5.0},
        {"side": "b", "milliseconds": 3.0, "least": 3.0, "largest": 9.0, "ratio": 1.5},
    ]


def test_a_loss_that_is_not_finite_is_named():
    sides = {"a": Side("a", []), "b": Side("b", [], math.nan)}
    with pytest.raises(FloatingPointError, match="loss of b is nan"):
        turns.time_by_turns(sides, warmup=1, rounds=1, steps=1)
