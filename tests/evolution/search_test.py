"""The search from the command line: every config's quick form, kills, refusals, the report."""

import contextlib
import json
import signal
import socket
import time
from pathlib import Path

import pytest
from support import mains

from evonorms_jax import Graph

# What two runs of the same history may differ in.
TIMINGS = ("seconds",)
BUDGET = 60  # of the quick forms

pytestmark = pytest.mark.slow


def arguments(workdir, *overrides, config="search_mnist5k.py:quick"):
    return [f"--config={mains.CONFIGS}/{config}", f"--workdir={workdir}", *overrides]


def start(workdir, *overrides, **options):
    return mains.start("search", *arguments(workdir, *overrides), **options)


def run(workdir, *overrides, config="search_mnist5k.py:quick"):
    return mains.run("search", *arguments(workdir, *overrides, config=config))


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
    """A quick search on two devices that was never stopped."""
    workdir = tmp_path_factory.mktemp("search") / "run"
    done = run(workdir, "--cpu_devices=2")
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


def test_the_same_command_again_changes_nothing(finished):
    workdir, _ = finished
    before = history(workdir)
    assert run(workdir).returncode == 0
    assert history(workdir) == before


def wait_for_records(workdir, count, *processes):
    while all(process.poll() is None for process in processes) and len(history(workdir)) < count:
        time.sleep(0.005)


def test_killed_and_interrupted_it_ends_with_the_same_history(finished, tmp_path):
    workdir = tmp_path / "run"
    for after in (1, 9, 17):
        process = start(workdir)
        wait_for_records(workdir, after, process)
        process.kill()
        mains.finish(process)
        assert after <= len(history(workdir)) < BUDGET
    process = start(workdir)
    wait_for_records(workdir, len(history(workdir)) + 1, process)
    process.send_signal(signal.SIGINT)
    done = mains.finish(process)
    assert done.returncode == 130
    assert "the same command goes on" in done.stderr and "Traceback" not in done.stderr
    assert run(workdir).returncode == 0
    assert history(workdir) == history(finished[0])


@pytest.mark.parametrize("devices", [1, 8])
def test_the_number_of_devices_does_not_change_the_history(finished, tmp_path, devices):
    done = run(tmp_path / "run", f"--cpu_devices={devices}")
    assert done.returncode == 0, done.stderr
    assert history(tmp_path / "run") == history(finished[0])
    assert f"devices {devices} of kind cpu" in done.stderr


@contextlib.contextmanager
def two_hosts(workdir, second=()):
    """Two processes with two devices each that share a search; `second` is for one of them alone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    processes = [
        start(
            workdir,
            *(f"--coordinator_address=127.0.0.1:{port}", "--num_processes=2", f"--process_id={index}"),
            *("--cpu_devices=2", *(second if index else ())),
        )
        for index in range(2)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            with process:
                process.kill()


def test_a_lost_host_ends_the_run_with_one_line_and_two_go_on_to_the_same_history(finished, tmp_path):
    workdir = tmp_path / "run"
    for lost, after in ((1, 5), (0, 21)):
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


def test_hosts_with_different_configs_are_refused(tmp_path):
    with two_hosts(tmp_path / "run", second=("--config.seed=3",)) as processes:
        for process in processes:
            _, errors = process.communicate()
            assert process.returncode != 0 and "Traceback" not in errors
            assert "the config differs between process 0 and process 1" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "config", ["search_cifar10_b.py:quick", "search_cifar10_s.py:quick", "search_tfds.py:quick"]
)
def test_the_quick_form_of_every_config_runs(config, tmp_path):
    done = run(tmp_path / "run", config=config)
    assert done.returncode == 0, done.stderr
    assert len(history(tmp_path / "run")) == BUDGET
    if "_s.py" in config:
        graphs = [Graph.from_json(r["graph"]) for r in history(tmp_path / "run") if r["scores"]]
        assert not any(graph.batch_dependent for graph in graphs)


@pytest.mark.parametrize(
    ("overrides", "outcomes"),
    [
        (("--config.method=random_search", "--config.budget=12"), {"inert"}),
        (("--config.method=random", "--config.budget=40"), {"accepted"}),
        (("--config.rejection.enabled=false", "--config.budget=3"), {"accepted", "diverged", "duplicate"}),
        (("--config.evolution.seed_layers=('evonorm_b0','bn_silu')", "--config.budget=2"), {"accepted"}),
    ],
    ids=["random_search", "random", "no_rejection", "seed_layers"],
)  # fmt: skip
def test_methods_and_options(overrides, outcomes, tmp_path):
    done = run(tmp_path / "run", *overrides)
    assert done.returncode == 0, done.stderr
    records = history(tmp_path / "run")
    assert {r["outcome"] for r in records} & outcomes
    if "--config.method=random" in overrides:
        assert [r["outcome"] for r in records].index("accepted") == len(records) - 1
    if "--config.rejection.enabled=false" in overrides:
        assert {r["outcome"] for r in records} <= outcomes


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("--config.seed=1",), "belongs to another config: seed is 0 there and 1 now"),
        (("--config.evolution.populaton_size=3",), "did you mean 'population_size'"),
        (("--config.proxy.steps=many",), "--config.proxy.steps takes a whole number, got 'many'"),
        (("--config.anchors=('resnet_smal',)",), "did you mean 'resnet_small'"),
        (("--config.method=evolve",), "method must be one of evolution, random_search, random"),
        (("--config.evolution.selection=best",), "unknown evolution.selection 'best'"),
        (("--config.data.source=mnist",), "did you mean 'mnist5k'"),
        (("--config.data.crop=99",), "data.crop must be from 1 to"),
        (("--config.rejection.quality_steps=0",), "rejection.quality_steps must be from 1 to proxy.steps"),
        (("--config.evolution.seed_layers=('evonorm_c0',)",), "evolution.seed_layers must be of"),
        (("--config.executor=fast",), "executor must be one of universal, compiled, auto, got 'fast'"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0].partition("=")[0],
)
def test_wrong_input_is_one_clear_line(finished, overrides, message):
    workdir, _ = finished
    done = run(workdir, *overrides)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert message in line
    assert "Traceback" not in done.stderr
    assert len(history(workdir)) == BUDGET


def test_without_matplotlib_it_says_so_before_it_searches(tmp_path):
    done = mains.finish(start(tmp_path / "run", matplotlib=False))
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line == "error: the figure needs matplotlib: pip install evonorms-jax[demo]"
    assert not (tmp_path / "run").exists()


def test_missing_data_says_what_to_run(tmp_path):
    done = run(
        tmp_path / "run",
        f"--config.data.data_dir={tmp_path}",
        "--config.data.source=cifar10",
        config="search_cifar10_b.py",
    )
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "download_and_prepare" in line
    assert not (tmp_path / "run").exists(), "no work directory is left behind"
