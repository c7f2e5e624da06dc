"""Whole trainings in processes of their own, which are stopped, killed, and shared by hosts."""

import json
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from support import mains
from support.train_runs import SETTINGS, TRAIN, await_checkpoint, finish, manifests, run, saved_steps, start

from evonorms_jax.errors import UserError
from evonorms_jax.training import loop
from experiments.configs.train import get_config


def interrupt(workdir, signum, meanwhile=lambda: None):
    """Starts a run and sends it a signal once it has a new checkpoint; its exit status and log.

    It stands still while `meanwhile` runs.
    """
    before = manifests(workdir)
    with start(workdir) as child:
        await_checkpoint(workdir, child, before)
        child.send_signal(signal.SIGSTOP)
        while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)  # a thread may still be writing
        meanwhile()
        child.send_signal(signum)
        child.send_signal(signal.SIGCONT)
        _, err = child.communicate()
    assert not (workdir / "result.json").exists()
    return child.returncode, err


def assert_refused(workdir):
    """A second process in a work directory says which one holds it, and changes nothing."""
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.name != "lock.json"}
    status, out, err = run(workdir)
    assert (status, out) == (1, "")
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert re.match(rf"error: {workdir} is in use by process \d+ on .*, started \d{{4}}-", line)
    after = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.name != "lock.json"}
    assert after == before


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
    assert re.search(r" 60/60 \(100 %\), .*model resnet_tiny \| layer evonorm_b0 .*\| loss ", err)
    # One log line, and nothing from the libraries below.
    assert len(re.findall(r"^[IWE]\d{4}", err, re.M)) == 1 and "rbax" not in err
    assert saved_steps(workdir)[-3:] == [54, 57, 60] and set(saved_steps(workdir)[:-3]) <= {20, 40}


TROUBLED = """
import os
import resource
import signal
from evonorms_jax.training import classification
from experiments import flags, train

build = classification.build_task


def troubled_task(config, devices=None):
    task = build(config, devices)

    def train_step(state, batch):
        if int(state.step) == STEP:
            TROUBLE
        return task.train_step(state, batch)

    return task._replace(train_step=train_step)


classification.build_task = troubled_task
flags.run(train.main, example="experiments/configs/train.py")
"""


def troubled(trouble, step):
    """A program whose training runs a statement before a step."""
    return ("-c", TROUBLED.replace("TROUBLE", trouble).replace("STEP", str(step)))


def test_a_run_that_was_stopped_out_of_disk_and_killed_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    status, err = interrupt(workdir, signal.SIGINT, meanwhile=lambda: assert_refused(workdir))
    assert status == 130 and "Traceback" not in err
    (stopped,) = re.findall(r"^stopped and saved at step (\d+) of 60; ", err.splitlines()[-1])

    # A fork's log is a file, which would be too large too.
    full = troubled("resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))", 43)
    status, out, err = finish(start(workdir, program=full, begin=mains.launch))
    assert (status, out) == (1, ""), err
    lines = re.findall(r"^error: .*$", err, re.M)
    assert len(lines) == 1 and re.fullmatch(rf"error: {workdir}/\S+: File too large", lines[0]), err
    # TensorStore may print tracebacks of its own before.
    assert err.endswith(lines[0] + "\n") and f" {stopped}/60 " in err

    # It saves every step in the background, so that one is half written when the process dies.
    killed = troubled("os.kill(os.getpid(), signal.SIGKILL)", 53)
    status, _, _ = finish(start(workdir, program=killed, checkpoint_every=1))
    assert status == -signal.SIGKILL
    assert max(saved_steps(workdir)) in (52, 53)

    status, _, err = run(workdir)
    assert status == 0 and not re.search(r" 0/60 ", err)
    expected = (uninterrupted[0] / "result.json").read_text()
    assert (workdir / "result.json").read_text() == expected


def test_a_checkpoint_is_evaluated_from_the_command_line(uninterrupted):
    workdir = uninterrupted[0]
    result = json.loads((workdir / "result.json").read_text())
    status, out, err = finish(mains.start("evaluate", f"--workdir={workdir}", begin=mains.launch))
    assert status == 0, err
    loss, accuracy = (f"{name} {result['test'][name]:.4f}" for name in ("loss", "accuracy"))
    assert out == f"test {loss}, {accuracy} at step 60\n"


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--part=training", "train|validation|test"),
        ("--data_dir=elsewhere", "is no work directory: it has no config.json"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(tmp_path, flag, message):
    status, out, err = finish(mains.start("evaluate", f"--workdir={tmp_path}", flag))
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_wrong_settings_claim_no_work_directory(tmp_path):
    config = get_config("quick")
    config.update_from_flattened_dict(SETTINGS | {"data.crop": 9})
    with pytest.raises(UserError) as found:
        loop.train(config, tmp_path / "run")
    assert str(found.value) == "crop size must be from 1 to 8, got 9"
    assert not (tmp_path / "run").exists()


def start_hosts(workdir, programs=(TRAIN, TRAIN), **settings):
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
            program=program,
            **settings,
        )
        for number, program in enumerate(programs)
    ]


def test_two_hosts_of_which_one_was_lost_train_as_one(uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    killed = troubled("os.kill(os.getpid(), signal.SIGKILL)", 30)
    stays, goes = start_hosts(workdir, (TRAIN, killed))
    with stays, goes:
        _, err = stays.communicate()
    assert stays.returncode == 1
    assert err.splitlines()[-1].startswith("error: a step with the other hosts failed; if one was lost, ")
    assert "Traceback" not in err

    for host in start_hosts(workdir):
        with host:
            out, err = host.communicate()
        assert host.returncode == 0 and " 0/60 " not in err, err
        assert "test accuracy" in out
    found, expected = (json.loads((path / "result.json").read_text()) for path in (workdir, uninterrupted[0]))
    for part in ("validation", "test"):
        assert found[part] == pytest.approx(expected[part], rel=0.05)


@pytest.mark.exhaustive
def test_two_hosts_stop_together_and_go_on(tmp_path):
    """The signal comes to the one that writes nothing."""
    workdir = tmp_path / "run"
    settings = {"steps": 160, "checkpoint_every": 20}
    hosts = start_hosts(workdir, **settings)
    await_checkpoint(workdir, hosts[0])
    hosts[1].send_signal(signal.SIGTERM)
    ends = [finish(host) for host in hosts]
    assert [status for status, _, _ in ends] == [130, 130], ends
    (step,) = {re.search(r"^stopped and saved at step (\d+) of 160", err, re.M)[1] for _, _, err in ends}
    assert max(saved_steps(workdir)) == int(step)
    ends = [finish(host) for host in start_hosts(workdir, **settings)]
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert f" {step}/160 " in ends[0][2] and " 0/160 " not in ends[0][2]
    # But for the lines of the library that connects them, which name the host.
    results = [[line for line in out.splitlines() if "[Gloo]" not in line] for _, out, _ in ends]
    assert results[0] == results[1] and results[0]


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
