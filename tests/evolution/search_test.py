"""The search from the command line: kills, lost hosts, refusals, the report. See `session_test.py` too."""

import contextlib
import json
import signal
import socket
import time
from pathlib import Path

import pytest
from support import mains, one_block

# Keys in which two runs of the same history may differ.
TIMINGS = ("seconds",)
BUDGET = 60  # of the quick forms
SMALL = (
    "--cpu_devices=2",
    "--config.anchors=one_block",
    "--config.proxy.steps=20",
    "--config.rejection.quality_steps=10",
    "--config.rejection.quality_threshold=0.8",
    "--config.top_k=2",
)

pytestmark = pytest.mark.slow


def arguments(workdir, *overrides, config="search_mnist5k.py:quick"):
    return [f"--config={mains.CONFIGS}/{config}", f"--workdir={workdir}", *overrides]


def start(workdir, *overrides, begin=mains.fork):
    """A quick search on an anchor whose programs are built in a fraction of the time, and with few steps."""
    return begin("-c", one_block.MAIN, "experiments.search", *arguments(workdir, *SMALL, *overrides))


def run(workdir, *overrides, **options):
    return mains.finish(start(workdir, *overrides, **options))


def history(workdir):
    path = Path(workdir) / "history.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:  # the end of a line that is being written
            break
    return [{key: value for key, value in r.items() if key not in TIMINGS} for r in records]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A search on two devices that was never stopped, in a Python of its own."""
    workdir = tmp_path_factory.mktemp("search") / "run"
    done = run(workdir, begin=mains.launch)
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_a_quick_search_examines_its_budget_and_reports(finished):
    workdir, done = finished
    records = history(workdir)
    assert [r["index"] for r in records] == list(range(BUDGET))
    outcomes = {r["outcome"] for r in records}
    assert {"inert", "accepted"} <= outcomes
    assert all(bool(r["scores"]) for r in records if r["outcome"] == "accepted")
    assert f"report: {workdir / 'report' / 'index.html'}" in done.stdout
    assert (workdir / "report" / "index.html").read_text().startswith("<!doctype html>")
    assert json.loads((workdir / "top_layers.json").read_text())["layers"]
    names = [layer["name"] for layer in json.loads((workdir / "baselines.json").read_text())["layers"]]
    assert names == ["bn_relu", "gn_relu", "evonorm_b0", "evonorm_s0"]
    assert list((workdir / "tensorboard").iterdir())
    assert 0 <= json.loads((workdir / "devices.json").read_text())["idle_share"] < 1
    assert "devices 2 of kind cpu" in done.stderr
    assert f"{BUDGET}/{BUDGET} (100 %)" in done.stderr, "off a terminal the last state is a log line"


def wait_for_records(workdir, count, *processes):
    while all(process.poll() is None for process in processes) and len(history(workdir)) < count:
        time.sleep(0.005)


def test_killed_and_interrupted_it_ends_with_the_same_history(finished, tmp_path):
    workdir = tmp_path / "run"
    process = start(workdir)
    wait_for_records(workdir, 9, process)
    process.kill()
    mains.finish(process)
    assert 9 <= len(history(workdir)) < BUDGET
    process = start(workdir)
    wait_for_records(workdir, len(history(workdir)) + 1, process)
    process.send_signal(signal.SIGINT)
    done = mains.finish(process)
    assert done.returncode == 130
    assert "the same command goes on" in done.stderr and "Traceback" not in done.stderr
    assert run(workdir).returncode == 0
    assert history(workdir) == history(finished[0])


@contextlib.contextmanager
def two_hosts(workdir):
    """Two processes with two devices each that share a search."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    processes = [
        start(
            workdir,
            f"--coordinator_address=127.0.0.1:{port}",
            "--num_processes=2",
            f"--process_id={index}",
        )
        for index in range(2)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            with process:
                process.kill()


@pytest.mark.exhaustive
@pytest.mark.parametrize(("lost", "after"), [(1, 5), (0, 21)], ids=["follower", "leader"])
def test_a_lost_host_ends_the_run_with_one_line_and_two_go_on(finished, tmp_path, lost, after):
    workdir = tmp_path / "run"
    with two_hosts(workdir) as processes:
        wait_for_records(workdir, after, *processes)
        processes[lost].kill()
        ends = [mains.finish(process) for process in processes]
    assert ends[1 - lost].returncode == 1
    (line,) = [line for line in ends[1 - lost].stderr.splitlines() if line.startswith("error:")]
    assert f"process {lost}" in line and "start the same command again on all hosts" in line
    assert "Traceback" not in ends[1 - lost].stderr
    assert after <= len(history(workdir)) < BUDGET
    with two_hosts(workdir) as processes:
        for process in processes:
            done = mains.finish(process)
            assert done.returncode == 0, done.stderr
    assert history(workdir) == history(finished[0])
    assert (workdir / "report" / "index.html").exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize("devices", [1, 8])
def test_the_number_of_devices_does_not_change_the_history(finished, tmp_path, devices):
    done = run(tmp_path / "run", f"--cpu_devices={devices}")
    assert done.returncode == 0, done.stderr
    assert history(tmp_path / "run") == history(finished[0])
    assert f"devices {devices} of kind cpu" in done.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "name",
    ["search_mnist5k", "search_mnist5k_tokens", "search_cifar10_b", "search_cifar10_s", "search_tfds"],
)
def test_the_quick_form_of_every_config_runs(name, tmp_path):
    done = mains.run("search", *arguments(tmp_path / "run", config=f"{name}.py:quick"), begin=mains.launch)
    assert done.returncode == 0, done.stderr
    assert len(history(tmp_path / "run")) == BUDGET


def test_the_work_directory_of_another_config_is_refused_in_one_line(finished):
    workdir, _ = finished
    done = run(workdir, "--config.seed=1")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "belongs to another config: seed is 0 there and 1 now" in line
    assert len(history(workdir)) == BUDGET


def test_without_matplotlib_it_says_so_before_it_searches(tmp_path):
    code = ("-c", mains.WITHOUT_MATPLOTLIB, "experiments.search")
    done = mains.finish(mains.launch(*code, *arguments(tmp_path / "run")))
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line == "error: the report needs matplotlib: pip install 'evonorms-jax[demo]'"
    assert not (tmp_path / "run").exists()
