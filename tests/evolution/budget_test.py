"""The end of a search: its budget of candidates, and its budget of steps."""

import pytest
from support import search_configs

from evonorms_jax.evolution.history import Evaluation, History
from evonorms_jax.evolution.proposal import EvolutionSettings
from evonorms_jax.evolution.search import search
from evonorms_jax.evolution.session import evolution_settings

STEPS = 10  # that every candidate costs


@pytest.fixture
def settings() -> EvolutionSettings:
    return evolution_settings(search_configs.quick())._replace(round_size=8)


def examine(graphs, history):
    del history
    return [Evaluation("low_quality", {}, steps=STEPS) for _ in graphs]


def run(settings, history=None, **limits):
    history = History() if history is None else history
    for _ in search(history, examine, settings, seed=0, **limits):
        pass
    return history


@pytest.mark.parametrize(
    ("limits", "examined"),
    [
        ({"budget": 20}, 20),
        ({"budget": 20, "device_steps": 81}, 16),  # the round in which they are spent is completed
        ({"budget": 20, "device_steps": 80}, 8),
        ({"budget": 20, "device_steps": 1}, 8),
        ({"budget": 20, "device_steps": 10_000}, 20),
        ({"budget": 0}, 0),
    ],
)
def test_a_search_ends_with_the_first_budget_that_is_spent(settings, limits, examined):
    assert len(run(settings, **limits)) == examined


@pytest.mark.parametrize("kept", [1, 8, 9, 12, 15, 16])
def test_a_search_that_was_killed_ends_where_it_would_have_ended(settings, kept):
    limits = {"budget": 40, "device_steps": 81}
    whole = list(run(settings, **limits))
    assert list(run(settings, History(whole[:kept]), **limits)) == whole


def test_steps_are_counted_up_to_any_record(settings):
    history = run(settings, budget=20)
    assert [history.steps(before) for before in (0, 1, 20, None)] == [0, 10, 200, 200]
