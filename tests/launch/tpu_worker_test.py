"""launch/tpu/worker.sh as launch/tpu_search.sh calls it: on workers that are folders, commands really run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import fake_cloud
from support.cloud_sandbox import NEEDED, OVERRIDES, START, Cloud

import evonorms_jax


@pytest.fixture
def cloud(tmp_path):
    made = Cloud(tmp_path)
    yield made
    fake_cloud.delete(made.cloud)


def test_overrides_arrive_as_they_were_given(cloud):
    cloud.run("up", *NEEDED, *OVERRIDES)
    cloud.outcomes()
    for worker in fake_cloud.WORKERS:
        assert cloud.python(worker)[-1] == START + OVERRIDES


def test_the_workers_get_this_checkout_and_a_python_that_is_new_enough(cloud):
    mine = cloud.checkout / "experiments" / "configs" / "mine.py"
    mine.write_text("# not committed\n")
    for unwanted in (".venv", "runs", "experiments/__pycache__"):
        (cloud.checkout / unwanted).mkdir()
    cloud.run("up", *NEEDED, f"--config={mine.relative_to(cloud.checkout)}:quick")
    cloud.outcomes()
    mine.unlink()
    cloud.run("up", *NEEDED)
    cloud.outcomes()
    place = cloud.worker(1) / "evonorms"
    # The Python is made once, the package installed once; what is gone here is gone there.
    assert fake_cloud.lines(cloud.worker(1) / "uv") == [
        json.dumps(["venv", "--quiet", "--clear", "--seed", "--python", "3.12", ".venv"])
    ]
    pip, first, second = cloud.python(1)
    assert pip[:3] == ["-m", "pip", "install"] and pip[-2:] == ["--editable", ".[tpu,demo]"]
    assert first[2] == "--config=experiments/configs/mine.py:quick" and second == START
    assert not (place / "experiments" / "configs" / "mine.py").exists()
    # All that is needed to install it has arrived.
    version = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=place, capture_output=True, text=True, check=True
    )
    assert version.stdout.strip() == evonorms_jax.__version__
    assert not (place / "runs").exists() and not (place / "experiments" / "__pycache__").exists()


def test_data_are_copied_to_every_worker(cloud):
    cloud.run("up", *NEEDED, "--data=gs://b/my sets")
    copies = [call for call in cloud.calls() if call[0] == "storage" and "rsync" in call]
    targets = [str(cloud.worker(n) / "tensorflow_datasets") for n in fake_cloud.WORKERS]
    copy = ["storage", "rsync", "--recursive", "gs://b/my sets"]
    assert sorted(copies) == [[*copy, target] for target in targets]
    assert all(Path(target).is_dir() for target in targets)
    cloud.outcomes()


def test_a_set_up_that_fails_starts_nothing(cloud):
    cloud.set(broken="storage rsync")
    cloud.run("up", *NEEDED, "--data=gs://b/sets", status=1)
    assert [call[:2] for call in cloud.python()] == [["-m", "pip"]]


def test_a_search_that_fails_is_started_again(cloud):
    cloud.plan(1, 134, 137, 0)
    cloud.run("up", *NEEDED)
    assert cloud.outcomes() == ["finished"] * 2
    assert cloud.python()[1:] == [START] * 4
    assert "exit status 134, again in 0 s" in (cloud.worker() / "evonorms" / "search.log").read_text()


@pytest.mark.parametrize(
    ("status", "outcome", "times"), [(2, "refused", 1), (130, "stopped", 1), (1, "failed 8 times", 8)]
)
def test_some_ends_are_final(cloud, status, outcome, times):
    cloud.plan(*[status] * 20)
    cloud.run("up", *NEEDED)
    assert all(text.startswith(outcome) for text in cloud.outcomes())
    assert len(cloud.python()) == 1 + times


@pytest.mark.parametrize("step", ["wait", "import"])
def test_a_search_is_stopped(cloud, step):
    cloud.plan(step)
    cloud.run("up", *NEEDED)
    cloud.searching()
    assert cloud.run("stop", *NEEDED).stdout == "w-0: stopped\nw-1: stopped\n"
    assert cloud.run("stop", *NEEDED).stdout == "w-0: stopped\nw-1: stopped\n"
    assert len(cloud.python()) == 2


def test_a_search_outlives_the_connection_and_goes_on_once(cloud):
    cloud.plan("wait")
    cloud.run("up", *NEEDED)
    cloud.searching()
    assert "w-0: running\nw-1: running\n" in cloud.run("status", *NEEDED).stdout
    installed = (cloud.worker() / "evonorms" / "setup.py").stat().st_mtime_ns
    os.utime(cloud.checkout / "setup.py")
    again = cloud.run("up", *NEEDED).stdout
    assert "w-0: searching, left as it is\n" in again and "w-0: searching already\n" in again
    assert (cloud.worker() / "evonorms" / "setup.py").stat().st_mtime_ns == installed
    assert len(cloud.python()) == 2
    assert cloud.run("stop", *NEEDED).stdout == "w-0: stopped\nw-1: stopped\n"
    assert cloud.outcomes() == ["stopped", "stopped"]
    cloud.run("up", *NEEDED)
    assert cloud.outcomes() == ["finished", "finished"]


def test_the_state_of_a_worker_is_told(cloud):
    assert cloud.run("status", *NEEDED).stdout == "mine: ABSENT\n"
    cloud.set(request="WAITING_FOR_RESOURCES")
    assert cloud.run("status", *NEEDED).stdout == "mine: WAITING_FOR_RESOURCES\n"
    cloud.set(request="ACTIVE", node="READY")
    assert cloud.run("status", *NEEDED).stdout == "mine: READY\nw-0: not set up\nw-1: not set up\n"
    cloud.run("up", *NEEDED)
    cloud.outcomes()
    assert cloud.run("status", *NEEDED).stdout == "mine: READY\nw-0: finished\nw-1: finished\n"
