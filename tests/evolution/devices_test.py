"""Shares, slots, states and the account of idle time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.search_configs import quick

from evonorms_jax.evolution import session
from evonorms_jax.evolution.devices import Devices, Program, pack, release_programs


class Measures(NamedTuple):
    value: jax.Array
    steps: jax.Array


def counted(shared, item, kept):
    """Adds `shared` to the state, `item` times."""

    def add(carry):
        return carry[0] + shared, carry[1] + 1

    total, steps = jax.lax.while_loop(lambda carry: carry[1] < item, add, (kept, jnp.int32(0)))
    return Measures(jnp.sum(total), steps), total


def make(count, slots=3):
    devices = Devices(slots, jax.local_devices()[:count])
    return devices, Program(devices, counted, devices.replicate(jnp.float32(2)), kept=jnp.zeros(2))


def run(program, items, **kept):
    items = [np.int32(item) for item in items]
    return program.run(items, costs=items, work=lambda measures: 1.0 + measures.steps, **kept)


def test_pack_gives_every_bin_about_the_same():
    assert pack([5, 3, 3, 2, 2, 1], 2) == [[0, 3, 5], [1, 2, 4]]
    assert pack([1.0, 1.0], 3) == [[0], [1], []]
    assert pack([], 2) == [[], []]


def test_pack_leaves_no_bin_with_more_than_the_rest_by_a_whole_item(rng):
    costs = rng.uniform(1, 9, 40).tolist()
    packed = pack(costs, 4)
    assert sorted(i for share in packed for i in share) == list(range(40))
    totals = [sum(costs[i] for i in share) for share in packed]
    assert max(totals) - min(totals) <= max(costs)


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("number", [1, 5, 13])
def test_every_item_gets_its_own_result_however_many_there_are(count, number):
    """13 items in shares of 3: more than one call on few devices, free slots on many."""
    _, program = make(count)
    results = run(program, range(number))
    assert [result.measures.value for result in results] == [4.0 * i for i in range(number)]
    assert [result.measures.steps for result in results] == list(range(number))
    for i in (0, number - 1):
        np.testing.assert_array_equal(results[i].fetch(), [2.0 * i, 2.0 * i])


def test_the_state_goes_into_the_next_call():
    _, program = make(2)
    first = run(program, [1, 4, 2])
    again = run(program, [3, 3, 0], kept=[result.fetch() for result in first])
    assert [result.measures.value for result in again] == [16.0, 28.0, 8.0]


def test_no_items_are_no_call():
    devices, program = make(2)
    assert run(program, []) == [] and devices.idle_share == 0


def test_seconds_of_a_share_are_divided_by_the_work_done():
    _, program = make(1)
    long, short = run(program, [99, 0])
    assert long.seconds == pytest.approx(100 * short.seconds)


def test_idle_time_is_spent_waiting_for_the_last_device():
    devices, _ = make(2)
    devices.count([2.0, 1.0])
    devices.count([0.0, 1.0])
    assert devices.idle_share == pytest.approx(1 - 4 / 6)
    lonely, program = make(2)
    run(program, [1000])
    assert lonely.idle_share == pytest.approx(0.5)


def test_programs_are_released():
    client = jax.devices()[0].client
    release_programs()
    before = len(client.live_executables())
    for _ in range(3):
        _, program = make(2)
        run(program, [3, 1])
        del program
        release_programs()
    assert len(client.live_executables()) <= before + 1


@pytest.mark.parametrize(("round_size", "slots"), [(8, 8), (1024, 32)])
def test_a_long_round_takes_no_more_memory(monkeypatch, round_size, slots):
    monkeypatch.setattr(session, "Evaluator", lambda *_, **options: options["slots"])
    config = quick()
    config.evolution.round_size = round_size
    assert session.make_evaluator(config) == slots
