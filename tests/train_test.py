"""Trainings: the loop around a step that costs nothing, and whole runs that are stopped and killed."""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from evonorms_jax.layers import save_layers
from evonorms_jax.search_space import CATALOG
from evonorms_jax.training import loop
from evonorms_jax.training.interrupt import stop_requested
from evonorms_jax.training.steps import TrainState
from evonorms_jax.training.task import Task
from experiments.configs.train import get_config

ROOT = Path(__file__).parent.parent
SETTINGS = {
    "steps": 60,
    "batch_size": 8,
    "eval_batch_size": 32,
    "log_every": 2,
    "eval_every": 20,
    "checkpoint_every": 3,
    "data.source": "synthetic",
    "data.image_size": 8,
    "data.train_size": 64,
    "data.crop": 6,
    "optimizer.warmup_steps": 2,
}


@pytest.fixture
def config():
    config = get_config()
    config.update_from_flattened_dict(SETTINGS)
    return config


def stand_in(monkeypatch, loss_of):
    """Makes the loop train with a step whose loss is `loss_of(number)`."""

    def train_step(state, batch):
        del batch
        step = int(state.step) + 1
        metrics = {"loss": jnp.float32(loss_of(step)), "accuracy": jnp.float32(0.5)}
        return state._replace(step=jnp.int32(step)), metrics

    zero = TrainState(jnp.int32(0), {"kernel": jnp.zeros(3)}, {}, (), {})
    task = Task(
        init=lambda: zero,
        batches=itertools.count,
        train_step=train_step,
        evaluate=lambda state, part: {"loss": float(state.step), "accuracy": 0.25},
        learning_rate=lambda step: 0.1,
        target=zero,
        steps=60,
        data="stand-in",
    )
    monkeypatch.setattr(loop, "build_task", lambda *_: task)


def saved_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.mark.parametrize(("value", "number"), [(np.nan, 8), (np.inf, 9), (-np.inf, 10)])
def test_a_loss_that_is_not_finite_ends_the_run(config, monkeypatch, tmp_path, value, number):
    stand_in(monkeypatch, lambda step: value if step >= number else 1.0)
    config.log_every = 5  # not with every checkpoint
    with pytest.raises(FloatingPointError, match=f"the loss is {value} at step {number}:"):
        loop.train(config, tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [step for step in (3, 6, 9) if step < number]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(config, monkeypatch, tmp_path, capfd, signum):
    def at_step_7(step):
        if step == 7:
            os.kill(os.getpid(), signum)
        return 1.0

    stand_in(monkeypatch, at_step_7)
    message = "stopped and saved at step 7 of 60; the same command goes on from there"
    with pytest.raises(KeyboardInterrupt, match=message):
        loop.train(config, tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [3, 6, 7]
    assert "once more to stop at once" in capfd.readouterr().err
    assert signal.getsignal(signum) in (signal.default_int_handler, signal.SIG_DFL)
    assert loop.train(config, tmp_path / "run").steps == 60
    assert " 7/60 " in capfd.readouterr().err


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


def test_a_layer_file_that_changed_is_refused(config, monkeypatch, tmp_path):
    """A search goes on writing the file that a training took its layer from."""
    stand_in(monkeypatch, lambda step: 1.0)
    path = tmp_path / "top_layers.json"
    config.layer.spec = f"{path}#0"
    save_layers(path, [{"graph": CATALOG["evonorm_s0"]}])
    loop.train(config, tmp_path / "run")
    save_layers(path, [{"graph": CATALOG["evonorm_b0"]}])
    with pytest.raises(ValueError, match=r"another config: layer\.equation is"):
        loop.train(config, tmp_path / "run")


# -- Whole runs in a process of their own, on made-up images


def start(workdir, *flags, **overrides):
    flags = [*flags, *(f"--config.{key}={value}" for key, value in (SETTINGS | overrides).items())]
    config = "--config=experiments/configs/train.py:quick"
    # One device: with the eight of the tests a step takes many times as long.
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.train", config, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=os.environ | {"EVONORMS_CACHE": str(ROOT / ".cache" / "jax"), "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(workdir, **overrides):
    with start(workdir, **overrides) as child:
        out, err = child.communicate()
    return child.returncode, out, err


def manifests(workdir):
    return set((workdir / "checkpoints").glob("*/manifest.json"))


def await_checkpoint(workdir, child, before=frozenset()):
    """Returns when there is a new checkpoint, which `child` is to write."""
    while not manifests(workdir) - before:
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)


def interrupt(workdir, signum):
    """Starts a run and sends it a signal once it has a new checkpoint; its exit status and log."""
    before = manifests(workdir)
    with start(workdir) as child:
        await_checkpoint(workdir, child, before)
        child.send_signal(signum)
        _, err = child.communicate()
    assert not (workdir / "result.json").exists()
    return child.returncode, err


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run that nobody disturbed: work directory, output, log."""
    workdir = tmp_path_factory.mktemp("train") / "run"
    status, out, err = run(workdir)
    assert status == 0, err
    return workdir, out, err


def test_a_run_reports_what_it_reached(uninterrupted):
    workdir, out, err = uninterrupted
    result = json.loads((workdir / "result.json").read_text())
    assert result["steps"] == 60
    validation, test = result["validation"], result["test"]
    assert 0 <= validation["accuracy"] <= 1 and 0 <= test["accuracy"] <= 1
    expected = f"validation accuracy {validation['accuracy']:.4f}, test accuracy {test['accuracy']:.4f}"
    assert out.startswith(expected)
    assert re.search(r" 60/60 \(100 %\), .*model resnet_small \| layer evonorm_b0 .*\| loss ", err)
    # One log line, and nothing from the libraries below.
    assert len(re.findall(r"^[IWE]\d{4}", err, re.M)) == 1 and "rbax" not in err
    assert saved_steps(workdir) == [54, 57, 60]


def test_a_run_that_was_stopped_and_killed_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    status, err = interrupt(workdir, signal.SIGINT)
    assert status == 130 and "Traceback" not in err
    assert re.fullmatch(r"stopped and saved at step \d+ of 60; .*", err.splitlines()[-1])
    status, _ = interrupt(workdir, signal.SIGKILL)
    assert status == -signal.SIGKILL
    status, _, err = run(workdir)
    assert status == 0 and not re.search(r" 0/60 ", err)
    expected = (uninterrupted[0] / "result.json").read_text()
    assert (workdir / "result.json").read_text() == expected


def test_wrong_settings_claim_no_work_directory(tmp_path):
    status, _, err = run(tmp_path / "run", **{"data.crop": 9})
    assert status == 2 and err.splitlines()[-1] == "error: crop size must be from 1 to 8, got 9"
    assert not (tmp_path / "run").exists()


def start_hosts(workdir, **settings):
    """Two processes with a device each, of which the first one writes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        start(
            workdir,
            f"--coordinator_address={address}",
            "--num_processes=2",
            f"--process_id={number}",
            **settings,
        )
        for number in range(2)
    ]


def test_two_hosts_train_as_one(uninterrupted, tmp_path):
    for host in start_hosts(tmp_path / "run"):
        with host:
            out, err = host.communicate()
        assert host.returncode == 0, err
        assert "test accuracy" in out
    found, expected = (
        json.loads((path / "result.json").read_text()) for path in (tmp_path / "run", uninterrupted[0])
    )
    for part in ("validation", "test"):
        assert found[part] == pytest.approx(expected[part], rel=0.05)


def test_a_host_that_is_lost_ends_the_other_with_a_line(tmp_path):
    workdir = tmp_path / "run"
    stays, goes = start_hosts(workdir, steps=100_000)
    with stays, goes:
        await_checkpoint(workdir, stays)
        goes.kill()
        _, err = stays.communicate()
    assert stays.returncode == 1
    assert err.splitlines()[-1].startswith("error: a step with the other hosts failed; if one was lost, ")
    assert "Traceback" not in err


def test_what_one_host_alone_finds_wrong_ends_both(tmp_path):
    """The first one looks at the work directory, while the other waits for it."""
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "thesis.txt").write_text("not a training")
    first, second = start_hosts(workdir)
    with first, second:
        _, err = first.communicate()
        second.communicate()
    assert first.returncode == 2 and err.splitlines()[-1].startswith("error: ")
    assert second.returncode != 0


def test_a_host_that_is_told_half_is_an_error(tmp_path):
    with start(tmp_path / "run", "--num_processes=2") as child:
        _, err = child.communicate()
    assert child.returncode == 2 and err.startswith("error: several hosts: give coordinator_address, ")
