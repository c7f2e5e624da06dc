"""Calls, and trainings of several sides, that take turns: other load on the machine affects all of them."""

import functools
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax


def milliseconds(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of calls by name, one value for each round.

    Args:
      calls: functions by name. In every round each is called once, in the given order, and waited for.
      rounds: number of rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(1e3 * (time.perf_counter() - begun))
    return times


class Side(Protocol):
    """The training of one side. `run` waits until the last step is done, and returns its losses by name."""

    def run(self, steps: int) -> dict[str, float]: ...


def count_parameters(params: Mapping[str, Any]) -> dict[str, int]:
    """Number of parameters by part or network."""
    return {name: sum(leaf.size for leaf in jax.tree.leaves(part)) for name, part in params.items()}


class Timed(NamedTuple):
    """The rounds of one side."""

    milliseconds: list[float]  # of a step, the mean of each round
    losses: dict[str, float]  # of the last step


def time_by_turns(sides: Mapping[str, Side], *, warmup: int, rounds: int, steps: int) -> dict[str, Timed]:
    """Times the steps of each side. In every round each side runs its steps once, in the given order.

    Args:
      sides: trainings by name.
      warmup: steps of each side before the first round, which build the programs. They are not timed.
      rounds: number of rounds, at least 1.
      steps: number of steps of each side in a round, at least 1.

    Raises:
      FloatingPointError: if a loss is not finite.
    """
    losses = {}

    def run(name: str, count: int) -> None:
        losses[name] = sides[name].run(count)
        _check_finite(name, losses[name])

    for name in sides:
        run(name, warmup)
    times = milliseconds({name: functools.partial(run, name, steps) for name in sides}, rounds)
    return {name: Timed([each / steps for each in times[name]], losses[name]) for name in sides}


def _check_finite(side: str, losses: Mapping[str, float]) -> None:
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise FloatingPointError(f"{name} of {side} is {loss}")


def rows(timed: Mapping[str, Timed]) -> list[dict[str, Any]]:
    """A row for each side: milliseconds of a step, their ratio to those of the first side, and the losses.

    The time of a side is the median over its rounds, beside the least and the largest.
    """
    medians = {name: statistics.median(each.milliseconds) for name, each in timed.items()}
    first = next(iter(medians.values()))
    return [
        {
            "side": name,
            "milliseconds": medians[name],
            "least": min(each.milliseconds),
            "largest": max(each.milliseconds),
            "ratio": medians[name] / first,
            **each.losses,
        }
        for name, each in timed.items()
    ]
