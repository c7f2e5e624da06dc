"""The training loop around a step without cost: its checkpoints, refusals and answers to signals."""

import itertools
import json
import os
import signal

import jax.numpy as jnp
import numpy as np
import pytest
from support.train_runs import SETTINGS, saved_steps

from evonorms_jax.layers import layer_file
from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.runs.interrupt import stop_requested
from evonorms_jax.search_space import CATALOG
from evonorms_jax.training import loop
from evonorms_jax.training.steps import TrainState
from evonorms_jax.training.task import Criterion, Task
from experiments.configs.train import get_config


@pytest.fixture
def config():
    config = get_config()
    config.update_from_flattened_dict(SETTINGS)
    return config


def stand_in(monkeypatch, loss_of, *, gradient_of=lambda step: 1.0, evaluate=None, steps=60, **task_fields):
    """Makes the loop train with a step whose loss is `loss_of(number)`."""

    def train_step(state, batch):
        del batch
        step = int(state.step) + 1
        metrics = {"loss": jnp.float32(loss_of(step)), "gradient_norm": jnp.float32(gradient_of(step))}
        return state._replace(step=jnp.int32(step)), metrics

    zero = TrainState(jnp.int32(0), {"kernel": jnp.zeros(3)}, {}, (), {})
    task = Task(
        init=lambda: zero,
        train_step=train_step,
        batches=itertools.count,
        evaluate=evaluate or (lambda state, part, stop: {"loss": float(state.step), "accuracy": 0.25}),
        learning_rate=lambda step: 0.1,
        target=zero,
        steps=steps,
        **task_fields,
    )
    monkeypatch.setattr(loop, "build_task", lambda *_: task)


def signal_at(number, signum=signal.SIGTERM):
    """The loss of a step at which a signal comes."""

    def loss_of(step):
        if step == number:
            os.kill(os.getpid(), signum)
        return 1.0

    return loss_of


def power_cut(*_, **__):
    raise OSError("power cut")


def rows(workdir):
    """The lines of `metrics.jsonl`, which must be JSON as others read it, too."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=pytest.fail) for line in lines]


@pytest.mark.parametrize(
    ("name", "value", "number", "steps"),
    [
        ("loss", np.nan, 8, 60),
        ("loss", np.inf, 9, 60),
        ("loss", -np.inf, 10, 60),
        ("gradient norm", np.inf, 9, 60),
        ("gradient norm", np.nan, 5, 5),  # the last one
    ],
)
def test_what_is_not_finite_ends_the_run(config, monkeypatch, tmp_path, name, value, number, steps):
    def value_of(step):
        return value if step >= number else 1.0

    finite = {"loss_of": lambda step: 1.0}
    stand_in(monkeypatch, **finite | {f"{name.split()[0]}_of": value_of}, steps=steps)
    config.log_every = 5  # not with every checkpoint
    message = f"the {name} is {value} at step {number}:"
    with pytest.raises(FloatingPointError, match=message):
        loop.train(config, tmp_path / "run")
    assert max(saved_steps(tmp_path / "run")) == 3 * ((number - 1) // 3)
    assert message in (tmp_path / "run" / loop.LOST).read_text()
    assert not (tmp_path / "run" / loop.RESULT).exists()


def test_an_evaluation_without_a_finite_loss_is_a_result(config, monkeypatch, tmp_path):
    """One image of many may overflow: it is wrong, and the accuracy stands."""
    found = {"loss": np.nan, "accuracy": 0.25}
    stand_in(monkeypatch, lambda step: 1.0, evaluate=lambda *_: found, steps=4)
    result = loop.train(config, tmp_path / "run")
    assert result.test == {"loss": None, "accuracy": 0.25}
    written = json.loads((tmp_path / "run" / loop.RESULT).read_text(), parse_constant=pytest.fail)
    assert written["validation"] == result.validation == result.test
    assert {"step": 4, "validation/loss": None, "validation/accuracy": 0.25} in rows(tmp_path / "run")
    assert loop.train(config, tmp_path / "run") == result


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(config, monkeypatch, tmp_path, capfd, signum):
    stand_in(monkeypatch, signal_at(7, signum))
    message = "stopped and saved at step 7 of 60; the same command resumes from there"
    with pytest.raises(KeyboardInterrupt, match=message):
        loop.train(config, tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [3, 6, 7]
    assert "once more to stop at once" in capfd.readouterr().err
    assert signal.getsignal(signum) in (signal.default_int_handler, signal.SIG_DFL)
    assert loop.train(config, tmp_path / "run").steps == 60
    assert " 7/60 " in capfd.readouterr().err


def test_a_run_stopped_at_an_evaluation_begins_with_it(config, monkeypatch, tmp_path):
    """From then on the checkpoint that is there has its score, whenever the process is killed."""
    run, config.checkpoint_every = tmp_path / "run", 50
    stand_in(monkeypatch, signal_at(20))
    with pytest.raises(KeyboardInterrupt, match="saved at step 20 of 60"):
        loop.train(config, run)
    assert saved_steps(run) == [20]
    stand_in(monkeypatch, lambda step: 1.0)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
        patch.setattr(Checkpoints, "save", power_cut)
        loop.train(config, run)  # the first one would be at 40
    with Checkpoints(run / loop.CHECKPOINTS, write=False) as checkpoints:
        assert checkpoints.restore().step == 20 and checkpoints.score(20) == 0.25
    assert loop.train(config, run).steps == 60
    assert [row["step"] for row in rows(run) if "validation/accuracy" in row] == [20, 40, 60]


@pytest.mark.parametrize(("part", "step"), [("validation", 20), ("test", 60)])
def test_a_signal_ends_an_evaluation(config, monkeypatch, tmp_path, part, step):
    config.checkpoint_every = 50

    def evaluate(state, asked, stop):
        assert not stop()
        if asked == part:
            os.kill(os.getpid(), signal.SIGTERM)
        return {} if stop() else {"accuracy": 0.25}

    stand_in(monkeypatch, lambda number: 1.0, evaluate=evaluate)
    with pytest.raises(KeyboardInterrupt, match=f"saved at step {step} of 60"):
        loop.train(config, tmp_path / "run")
    assert max(saved_steps(tmp_path / "run")) == step
    stand_in(monkeypatch, lambda number: 1.0)
    assert loop.train(config, tmp_path / "run").test == {"loss": 60.0, "accuracy": 0.25}


def test_the_best_is_that_of_any_evaluation(config, monkeypatch, tmp_path):
    """Also of one at a step that `checkpoint_every` does not divide."""
    config.checkpoint_every = 50
    accuracy = {20: 0.3, 40: 0.9, 60: 0.5}
    stand_in(
        monkeypatch,
        lambda step: 1.0,
        evaluate=lambda state, part, stop: {"accuracy": accuracy[int(state.step)]},
    )
    loop.train(config, tmp_path / "run")
    with Checkpoints(tmp_path / "run" / loop.CHECKPOINTS, write=False) as checkpoints:
        assert checkpoints.restore(best=True).step == 40


def test_a_task_chooses_its_criterion_and_writes_its_pictures(config, monkeypatch, tmp_path, capfd):
    """Of a distance the smallest is the best. Pictures follow every evaluation, that of the test part too."""
    config.checkpoint_every, pictures = 50, []
    distance = {20: 0.3, 40: 0.1, 60: 0.5}
    stand_in(
        monkeypatch,
        lambda step: 1.0,
        evaluate=lambda state, part, stop: {"distance": distance[int(state.step)]},
        criterion=Criterion("distance", largest=False),
        illustrate=lambda state, workdir: pictures.append((int(state.step), workdir.name)),
    )
    loop.train(config, tmp_path / "run")
    with Checkpoints(tmp_path / "run" / loop.CHECKPOINTS, write=False) as checkpoints:
        assert checkpoints.restore(best=True).step == 40
    assert pictures == [(step, "run") for step in (20, 40, 60, 60)]
    assert "validation distance 0.5000 at step 60" in capfd.readouterr().err


def test_other_data_under_a_checkpoint_are_refused(config, monkeypatch, tmp_path):
    stand_in(monkeypatch, lambda step: 1.0, identity={"categories": {"1": "cat"}})
    loop.train(config, tmp_path / "run")
    stand_in(monkeypatch, lambda step: 1.0, identity={"categories": {"1": "dog"}})
    with pytest.raises(ValueError, match=r"categories\.1 is 'cat' there and 'dog' now"):
        loop.train(config, tmp_path / "run")


def test_points_are_on_disk_before_a_checkpoint_and_once_after_a_kill(config, monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "_FLUSH_SECONDS", -1.0)
    config.checkpoint_every = 50
    stand_in(monkeypatch, lambda step: power_cut() if step == 7 else 1.0)
    with pytest.raises(OSError, match="power cut"):
        loop.train(config, tmp_path / "run")
    assert [row["step"] for row in rows(tmp_path / "run")] == [2, 4, 6]
    stand_in(monkeypatch, lambda step: 1.0)
    loop.train(config, tmp_path / "run")
    steps = [row["step"] for row in rows(tmp_path / "run") if "train/loss" in row]
    assert steps == list(range(2, 61, 2))


def test_a_second_signal_stops_at_once():
    with pytest.raises(KeyboardInterrupt, match="at once"), stop_requested() as stopped:
        assert not stopped()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped()
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_finished_run_says_the_same_again(config, monkeypatch, tmp_path):
    stand_in(monkeypatch, lambda step: 1.0)
    first = loop.train(config, tmp_path / "run")
    stand_in(monkeypatch, lambda step: pytest.fail("there was nothing left to train"))
    assert loop.train(config, tmp_path / "run") == first


def test_what_changes_no_training_may_change_before_it_goes_on(config, monkeypatch, tmp_path):
    stand_in(monkeypatch, signal_at(7))
    with pytest.raises(KeyboardInterrupt):
        loop.train(config, tmp_path / "run")
    config.update_from_flattened_dict(
        {"log_every": 5, "checkpoint_every": 50, "data.threads": 2, "data.data_dir": "elsewhere"}
    )
    config.optimizer.learning_rate = 0.2
    with pytest.raises(
        ValueError, match=r"another config: optimizer\.learning_rate is 0\.1 there and 0\.2 now$"
    ):
        loop.train(config, tmp_path / "run")
    config.optimizer.learning_rate = 0.1
    assert loop.train(config, tmp_path / "run").steps == 60


def test_a_layer_file_that_changed_is_refused(config, monkeypatch, tmp_path):
    """A search may rewrite the file from which a training took its layer."""
    stand_in(monkeypatch, lambda step: 1.0)
    path = tmp_path / "top_layers.json"
    config.layer.spec = f"{path}#0"
    path.write_text(layer_file([{"graph": CATALOG["evonorm_s0"].to_json()}]))
    loop.train(config, tmp_path / "run")
    path.write_text(layer_file([{"graph": CATALOG["evonorm_b0"].to_json()}]))
    with pytest.raises(ValueError, match=r"another config: layer\.equation is"):
        loop.train(config, tmp_path / "run")
