"""Checkpoints: what was saved comes back, what is damaged does not, whenever the process died."""

import logging
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.forks import Child, python

from evonorms_jax.runs.checkpoint import MANIFEST, Checkpoints
from evonorms_jax.training.mesh import data_mesh, replicated, split


class State(NamedTuple):
    step: jax.Array
    params: dict
    empty: dict


def state(value):
    params = {"kernel": jnp.full((16, 8), value, jnp.float32), "half": jnp.full(3, value, jnp.bfloat16)}
    return State(jnp.int32(value), params, {})


@pytest.fixture
def three(tmp_path):
    """A directory with the checkpoints 1, 2 and 3."""
    with Checkpoints(tmp_path / "run") as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, record={"step": step, "nested": [1, 2.5, None]}, arrays=state(step))
    return tmp_path / "run"


def assert_equal(restored, expected):
    jax.tree.map(np.testing.assert_array_equal, restored, expected)
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    assert jax.tree.map(lambda leaf: leaf.dtype, restored) == jax.tree.map(lambda leaf: leaf.dtype, expected)


def test_the_newest_comes_back(three):
    with Checkpoints(three) as checkpoints:
        step, record, arrays = checkpoints.restore(state(0))
    assert (step, record) == (3, {"step": 3, "nested": [1, 2.5, None]})
    assert_equal(arrays, state(3))


def test_without_a_target_arrays_are_plain(three):
    with Checkpoints(three) as checkpoints:
        arrays = checkpoints.restore().arrays
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(arrays))
    np.testing.assert_array_equal(arrays["params"]["kernel"], state(3).params["kernel"])


def test_there_may_be_none_and_there_may_be_no_arrays(tmp_path):
    with Checkpoints(tmp_path / "a" / "b") as checkpoints:
        assert checkpoints.restore() is None
        checkpoints.save(0, record={"history": []})
        assert checkpoints.restore() == (0, {"history": []}, None)


@pytest.mark.parametrize("place", [replicated, split])
def test_the_target_decides_on_which_devices(three, place):
    sharding = {"kernel": place(data_mesh()), "half": replicated(data_mesh(jax.devices()[2:4]))}
    target = state(0)
    params = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding[name])
        for name, leaf in target.params.items()
    }
    with Checkpoints(three) as checkpoints:
        arrays = checkpoints.restore(target._replace(params=params)).arrays
    assert_equal(arrays, state(3))
    assert {name: leaf.sharding for name, leaf in arrays.params.items()} == sharding


def test_only_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path, max_to_keep=2) as checkpoints:
        for step in (1, 5, 30, 200):
            checkpoints.save(step, record={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["200", "30"]


@pytest.mark.parametrize("background", [False, True])
def test_the_best_is_kept_besides(tmp_path, background):
    scores = {1: 0.2, 5: 0.9, 30: None, 200: 0.4}
    for step, score in scores.items():
        with Checkpoints(tmp_path, max_to_keep=1, background=background) as checkpoints:
            checkpoints.save(step, record={"step": step}, score=score)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["200", "5"]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(best=True).step == 5
        assert checkpoints.restore().step == 200


def test_without_scores_the_best_is_the_newest(three):
    with Checkpoints(three) as checkpoints:
        assert checkpoints.restore(best=True).step == 3


def test_a_save_in_the_background_takes_the_arrays_as_they_were(tmp_path):
    """The next step gets the buffers of the state as soon as `save` returns."""
    with Checkpoints(tmp_path, background=True) as checkpoints:
        arrays = jax.device_put(state(7))
        checkpoints.save(7, record={}, arrays=arrays)
        jax.tree.map(lambda leaf: leaf.delete(), arrays)
        checkpoints.wait()
        assert_equal(checkpoints.restore(state(0)).arrays, state(7))


def test_what_goes_wrong_in_the_background_is_told(tmp_path):
    checkpoints = Checkpoints(tmp_path, background=True)
    checkpoints.save(1, record={"not JSON": object()})
    with pytest.raises(TypeError):
        checkpoints.close()


def test_a_reader_changes_nothing(tmp_path, three):
    with Checkpoints(three, write=False) as checkpoints:
        assert checkpoints.restore().step == 3
    with Checkpoints(tmp_path / "none", write=False) as checkpoints:
        assert checkpoints.restore() is None
    assert not (tmp_path / "none").exists()


def test_a_step_saved_again_is_replaced_and_its_future_dropped(three):
    with Checkpoints(three) as checkpoints:
        checkpoints.save(2, record={"again": True})
        assert checkpoints.restore() == (2, {"again": True}, None)
    assert sorted(path.name for path in three.iterdir()) == ["1", "2"]


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_save_that_dies_loses_no_other_step(three, monkeypatch, step):
    """Also where it replaces the future of an older one."""
    with Checkpoints(three) as checkpoints:

        def die(*_, **__):
            raise OSError("power cut")

        monkeypatch.setattr(checkpoints._manager, "save", die)
        with pytest.raises(OSError, match="power cut"):
            checkpoints.save(step, record={"new": True})
    with Checkpoints(three) as checkpoints:
        assert checkpoints.restore(state(0)).step == 3
    assert {int(path.name) for path in three.iterdir()} == {1, 2, 3} - {step}


def test_a_score_can_be_added(three):
    with Checkpoints(three, background=True) as checkpoints:
        checkpoints.save(4, record={"step": 4}, arrays=state(4))
        others = [path for path in (three / "2").rglob("*") if path.is_file() and path.name != MANIFEST]
        before = [path.stat().st_mtime_ns for path in others]
        checkpoints.add_score(2, 0.5)
        assert checkpoints.score(2) == 0.5
        with pytest.raises(ValueError, match=r"no whole checkpoint .*run/9 "):
            checkpoints.add_score(9, 0.5)
    assert others and [path.stat().st_mtime_ns for path in others] == before
    with Checkpoints(three) as checkpoints:
        assert checkpoints.restore(state(0)).step == 4
        step, record, arrays = checkpoints.restore(state(0), best=True)
    assert (step, record["step"]) == (2, 2)
    assert_equal(arrays, state(2))


def test_a_score_that_was_being_added_does_no_damage(three):
    (three / "3" / f"{MANIFEST}.draft").write_text('{"score": 0.')
    with Checkpoints(three) as checkpoints:
        assert checkpoints.restore(state(0)).step == 3


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(7, 107))),
    "flipped": flip_a_byte,
    "removed": lambda path: path.unlink(),
}


def largest_array_file(checkpoint):
    return max((checkpoint / "arrays").glob("**/d/*"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", ["record", "arrays", "manifest"])
def test_a_damaged_one_is_passed_over(three, caplog, part, damage):
    newest = three / "3"
    files = {
        "record": newest / "record" / "metadata",
        "arrays": largest_array_file(newest),
        "manifest": newest / MANIFEST,
    }
    DAMAGES[damage](files[part])
    with caplog.at_level(logging.WARNING, "absl"), Checkpoints(three) as checkpoints:
        step, record, arrays = checkpoints.restore(state(0))
    assert (step, record["step"]) == (2, 2)
    assert_equal(arrays, state(2))
    (line,) = (r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING)
    assert f"{newest} is damaged" in line and "\n" not in line


def test_the_run_goes_on_after_damage(three):
    """A later restore must find the new checkpoints, and not the damaged ones beyond them."""
    for step in ("2", "3"):
        (three / step / "record" / "metadata").unlink()
    with Checkpoints(three) as checkpoints:
        assert checkpoints.restore(state(0)).step == 1
        checkpoints.save(2, record={"new": True})
    with Checkpoints(three) as checkpoints:
        assert checkpoints.restore() == (2, {"new": True}, None)


def test_all_damaged_is_an_error(three):
    for checkpoint in three.iterdir():
        (checkpoint / "record" / "metadata").unlink()
    with Checkpoints(three) as checkpoints, pytest.raises(ValueError, match="all 3 checkpoints in"):
        checkpoints.restore()


@pytest.mark.parametrize(
    ("params", "difference"),
    [
        ({"kernel": jnp.zeros((2, 2))}, r"params/kernel is \(16, 8\) there and \(2, 2\) here"),
        ({"bias": jnp.zeros(2)}, r"params/bias is not there and \(2,\) here"),
    ],
)
def test_another_model_is_an_error_and_no_damage(three, params, difference):
    other = state(0)._replace(params=state(0).params | params)
    expected = pytest.raises(ValueError, match=f"run/3 does not fit this program: the array {difference}")
    with Checkpoints(three) as checkpoints, expected:
        checkpoints.restore(other)


def test_what_a_killed_save_left_behind_is_no_checkpoint(three):
    (three / "9.orbax-checkpoint-tmp" / "record").mkdir(parents=True)
    with Checkpoints(three) as checkpoints:
        assert checkpoints.restore(state(0)).step == 3
        checkpoints.save(4, record={})
    assert sorted(path.name for path in three.iterdir()) == ["2", "3", "4"]


ENDLESS_SAVES = """
import sys
from evonorms_jax.runs.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
for step in range(10_000):
    checkpoints.save(step, record={"step": step, "text": "x" * 10_000})
    print(step, flush=True)
"""


def test_a_killed_process_leaves_what_it_saved(tmp_path):
    with Child(python, "-c", ENDLESS_SAVES, str(tmp_path)) as child:
        child.wait_for("\n11\n")
        last = 11
        child.kill()
    with Checkpoints(tmp_path) as checkpoints:
        step, record, _ = checkpoints.restore()
    assert step >= last and record["step"] == step
