"""The benchmarks run and report every row; times are never asserted."""

import json

import jax
import jax.numpy as jnp
import pytest
from support import mains
from support.search_configs import quick

from evonorms_jax.evolution.history import Evaluation, Proposal, Record
from evonorms_jax.layers import norm_act
from evonorms_jax.models import get_model
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.search_space import CATALOG
from experiments.benchmarks import layers, scaling


def run(*flags):
    return mains.run("benchmarks.layers", *flags)


def run_search_benchmark(name, workdir, *flags):
    """A benchmark of the search in its quick form, with the programs of earlier runs; as a user runs it."""
    config = f"--config={mains.CONFIGS}/search_mnist5k.py:quick"
    return mains.run(f"benchmarks.{name}", config, f"--workdir={workdir}", *flags)


def figures_of(name, workdir, *flags):
    result = run_search_benchmark(name, workdir, *flags)
    assert result.returncode == 0, result.stderr
    assert "written to" in result.stdout
    return json.loads((workdir / f"{name}.json").read_text())


def test_every_layer_is_measured_beside_the_reference():
    figures = layers.measure(layers.NAMES, [2, 4, 4, 8], "bfloat16", rounds=1)
    assert [row["layer"] for row in figures["rows"]] == list(layers.NAMES)
    assert figures["rows"][0]["time_ratio"] == 1
    assert all(row["milliseconds"] > 0 and row["temporary_bytes"] >= 0 for row in figures["rows"])
    assert (figures["shape"], figures["dtype"], figures["rounds"]) == ([2, 4, 4, 8], "bfloat16", 1)
    assert json.loads(json.dumps(figures)) == figures
    lines = layers.table(figures).splitlines()
    assert figures["device"] in lines[0] and figures["jax"] in lines[0]
    rows = lines[4 : 4 + len(layers.NAMES)]
    assert [line.split()[0] for line in rows] == list(layers.NAMES)
    assert len({len(line) for line in lines[3 : 4 + len(layers.NAMES)]}) == 1  # aligned


def test_the_command_prints_the_table_and_writes_the_figures(tmp_path):
    path = tmp_path / "new" / "figures.json"
    result = run("--shape=2,4,4,8", "--rounds=1", "--layers=evonorm_s2", f"--json={path}")
    assert result.returncode == 0, result.stderr
    figures = json.loads(path.read_text())
    assert [row["layer"] for row in figures["rows"]] == [layers.REFERENCE, "evonorm_s2"]
    assert result.stdout == f"{layers.table(figures)}\nwritten to {path}\n"


@pytest.mark.parametrize("flag, message", [
    ("--shape=2,0,4", "three or more sizes above 0, got 2,0,4"),
    ("--layers=evonorm_b0,evonorms0", "unknown layer 'evonorms0'; did you mean 'evonorm_s0'"),
])  # fmt: skip
def test_a_wrong_flag_is_one_clear_line(flag, message):
    result = run(flag)
    assert result.returncode == 2
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_an_unwritable_file_is_one_clear_line_before_anything_is_measured(tmp_path):
    (tmp_path / "file").touch()
    result = run(f"--json={tmp_path}/file/figures.json")
    assert result.returncode == 1
    assert result.stderr == f"error: {tmp_path}/file: Not a directory\n"


@pytest.mark.slow
def test_screening_agrees_with_plain_jax_candidate_by_candidate(tmp_path):
    counts = ("--random=5", "--mutated=4", "--baseline_candidates=4", "--cpu_devices=2")
    figures = figures_of("screening", tmp_path, *counts, "--nocold")
    assert figures["candidates"] == {"random": 5, "mutated": 4, "plain": 4, "sample": 2}
    assert sum(figures["outcomes"].values()) == 9
    assert [row["index"] for row in figures["compared"]] == [1, 3, 5, 7]
    assert figures["equal"] == 4 and all(row["equal"] for row in figures["compared"])
    assert figures["same_on_one_device"] is True
    assert {row["plain"]["outcome"] for row in figures["compared"]} >= {"accepted", "low_quality"}
    assert [row["part"] for row in figures["parts"]] == [
        "plain JAX", "+ inert skipped", "+ duplicates skipped", "+ one program for all", "+ early ends",
        "+ all devices",
    ]  # fmt: skip
    for row, seconds in zip(figures["parts"][-2:], ("one_device", "devices"), strict=True):
        assert row["seconds"] == figures["times"][seconds] > 0
    assert figures["config"]["proxy"]["steps"] == figures["config"]["rejection"]["quality_steps"]


@pytest.mark.slow
def test_a_search_finds_the_same_on_any_number_of_devices(tmp_path):
    figures = figures_of("scaling", tmp_path, "--device_counts=1,2", "--rounds=2")
    assert [row["devices"] for row in figures["rows"]] == [1, 2]
    assert all(row["same"] for row in figures["rows"])
    assert figures["rows"][0]["ratio"] == 1 and figures["rows"][0]["idle_share"] == 0
    assert 0 < figures["rows"][1]["idle_share"] < 1
    assert figures["candidates"] == sum(figures["outcomes"].values()) == 16
    assert figures["outcomes"]["accepted"] > 0, "mixed so that some pass"


def test_numbers_of_devices_that_are_not_there_are_named(caplog):
    with caplog.at_level("WARNING", "absl"):
        assert scaling.usable_counts([1, 4, 2, 8], available=2, round_size=2) == [1, 2]
    assert "not measured: 4, 8 devices, there are 2" in caplog.text
    with pytest.raises(ValueError, match="starts with 4, there are 2 devices"):
        scaling.usable_counts([4, 1], available=2, round_size=32)
    with pytest.raises(ValueError, match=r"evolution\.round_size must be at least 8, .* got 4"):
        scaling.usable_counts([1, 8], available=8, round_size=4)


def test_evaluations_that_differ_between_numbers_of_devices_are_an_error():
    rows = [{"devices": 1, "same": True}, {"devices": 2, "same": True}]
    scaling.check_same({"rows": rows})
    rows += [{"devices": 8, "same": False}]
    with pytest.raises(SystemExit) as raised:
        scaling.check_same({"rows": rows})
    assert raised.value.code == "error: evaluations on 8 devices differ from those on 1"


@pytest.mark.slow
def test_the_cost_model_reads_a_history_and_the_figures_of_another_machine(tmp_path):
    with claim_workdir(tmp_path / "search", quick().to_dict()) as history:
        pass
    scores = {"resnet_tiny": 0.5}
    evaluations = [
        Evaluation("inert", {}),
        Evaluation("unstable", {}, steps=4),
        Evaluation("low_quality", {}, steps=10 + 30),
        Evaluation("accepted", {}, scores, steps=10 + 60),
    ]
    records = [Record(i, Proposal(CATALOG["evonorm_s0"], "random"), e) for i, e in enumerate(evaluations)]
    lines = [json.dumps(record.to_json()) + "\n" for record in records]
    (history / "history.jsonl").write_text("".join(lines))
    gpu = {"name": "resnet_tiny", "operations": 1e6, "validation": 5, "universal": 0.4, "compiled": 0.1}
    machine = {"platform": "gpu", "device": "a GPU", "devices": 2, "cores": 8}
    other = {"machine": machine, "anchors": [gpu | {"build": 1000.0}]}
    (tmp_path / "gpu.json").write_text(json.dumps(other))

    reads = (f"--history={history}", f"--measured={tmp_path}/gpu.json")
    figures = figures_of("cost_model", tmp_path, *reads, "--nocold", "--gpu_price=3", "--cpu_devices=2")
    assert figures["mix"] == {
        "examined": 4, "untrained": 0.25, "rejected": 0.5, "trained": 0.25,
        "stability_steps": 6.0, "quality_steps": 7.5, "quality_tests": 0.25,
    }  # fmt: skip
    (anchor,) = figures["anchors"]
    assert min(anchor[key] for key in ("operations", "validation", "universal", "compiled", "build")) > 0
    assert [row["basis"] for row in figures["rows"]] == ["measured", "measured", "assumed", "assumed"]
    cpu, gpu, *_ = figures["rows"]
    assert gpu["device_seconds"] == pytest.approx({
        "stability": 6 * 2 * 0.4,  # the batch of the test is as large as that of the training
        "quality": (7.5 + 0.25 * 5) * 0.4,
        "training": 0.25 * (60 + 2 * 5) * 0.4,
    })  # fmt: skip
    assert gpu["hours"]["config"] == pytest.approx(60 * sum(gpu["device_seconds"].values()) / 2 / 3600)
    assert gpu["dollars"]["paper"] == pytest.approx(gpu["hours"]["paper"] * 2 * 3)
    cores = figures["machine"]["cores"]
    assert cpu["hours"]["paper"] == pytest.approx(5000 * 2 * 48 / cores)
    assert any("3 a GPU" in line for line in figures["assumptions"])


@pytest.mark.parametrize("name, flags, message", [
    ("screening", ["--random=0", "--mutated=0"], "at least one candidate"),
    ("screening", ["--config.rejection.enabled=False"], "rejection.enabled must be true"),
    ("scaling", ["--device_counts=2,0"], "whole numbers above 0, got '0'"),
    ("cost_model", ["--measured=nowhere.json"], "--measured=nowhere.json is no cost_model.json"),
    ("cost_model", ["--history=nowhere"], "no such work directory: nowhere"),
])  # fmt: skip
def test_wrong_flags_of_search_benchmarks_are_one_clear_line(name, flags, message, tmp_path):
    result = run_search_benchmark(name, tmp_path, *flags)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert message in result.stderr


def test_trainings_are_measured_beside_the_first(tmp_path):
    sizes = ("--model=resnet_tiny", "--image_size=8", "--batch_size=8", "--steps=1", "--rounds=1")
    others = ("--layers=bn_relu,evonorm_s0", "--peak_tflops=1")
    result = mains.run("benchmarks.training", f"--workdir={tmp_path}", *sizes, *others)
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "training.json").read_text())
    assert [row["layer"] for row in figures["rows"]] == ["bn_relu", "evonorm_s0"]
    assert figures["rows"][0]["ratio"] == 1
    assert all(0 < row["peak_share"] < 1 and row["operations"] > 1e5 for row in figures["rows"])
    network = get_model("resnet_tiny").build(norm_act("bn_relu"), 1000)  # classes; channels are in the images
    images = jnp.zeros((1, 8, 8, 3))
    made = jax.eval_shape(lambda key: network.init(key, images, train=False)["params"], jax.random.key(0))
    assert figures["rows"][0]["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(made))
