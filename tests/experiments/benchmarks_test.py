"""The benchmarks run and report every row. Times are never asserted.

The benchmarks of the search run in this process, on an anchor whose programs are built fast.
"""

import json

import jax
import jax.numpy as jnp
import pytest
from absl import flags as absl_flags
from support import mains, one_block

from evonorms_jax.evolution.history import Evaluation, Proposal, Record
from evonorms_jax.evolution.records import WorkdirError
from evonorms_jax.layers import norm_act
from evonorms_jax.models import get_model
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.search_space import CATALOG
from experiments import flags
from experiments.benchmarks import calibration, cost_model, layers, scaling, screening, training
from experiments.configs import search_mnist5k, search_mnist5k_tokens

config = one_block.config


@pytest.fixture
def run_here(config, monkeypatch, tmp_path):
    """Runs the main of a benchmark in this process and returns the results that it writes."""
    known = set(absl_flags.FLAGS)
    monkeypatch.setattr(flags, "use_cpu_devices", lambda count: None)
    monkeypatch.setattr(flags, "_required", [])

    def run(module, *arguments, search=True):
        settings = [f"--config={mains.CONFIGS}/search_mnist5k.py:quick", f"--config.anchors={config.anchors}"]
        workdir = f"--workdir={tmp_path}"
        argv = ["main", *(settings if search else []), workdir, *arguments]
        module.define_flags()
        flags._parse("a config is required" if search else None, argv, positional=False)
        module.main(argv[:1])
        name = module.__name__.rpartition(".")[2]
        return json.loads((tmp_path / f"{name}.json").read_text())

    yield run
    absl_flags.FLAGS.unparse_flags()
    for name in set(absl_flags.FLAGS) - known:
        delattr(absl_flags.FLAGS, name)


# -- Layers


def test_every_layer_is_measured_beside_the_reference():
    measured = layers.measure(layers.NAMES, [2, 4, 4, 8], "bfloat16", rounds=1)
    assert [row["layer"] for row in measured["rows"]] == list(layers.NAMES)
    assert measured["rows"][0]["time_ratio"] == 1
    assert all(row["milliseconds"] > 0 and row["temporary_bytes"] >= 0 for row in measured["rows"])
    assert measured["settings"] == {"shape": [2, 4, 4, 8], "dtype": "bfloat16", "rounds": 1}
    assert json.loads(json.dumps(measured)) == measured
    assert list(layers.table(measured).columns[0].cells) == list(layers.NAMES)


def test_the_command_prints_the_table_and_writes_the_results(tmp_path):
    small = ("--shape=2,4,4,8", "--rounds=1", "--layers=evonorm_s2")
    result = mains.run("benchmarks.layers", *small, f"--workdir={tmp_path / 'new'}")
    assert result.returncode == 0, result.stderr
    path = tmp_path / "new" / "layers.json"
    measured = json.loads(path.read_text())
    assert [row["layer"] for row in measured["rows"]] == [layers.REFERENCE, "evonorm_s2"]
    first, *table, graph, last = result.stdout.splitlines()
    assert measured["machine"]["device"] in first and measured["machine"]["date"] in first
    shown = [line.split()[1] for line in table if "│" in line]
    assert shown == [layers.REFERENCE, "evonorm_s2"]
    assert len({len(line) for line in table if "│" in line}) == 1  # aligned
    assert graph == f"{layers.RANDOM}: {layers.sample_graph()}"
    assert last == f"written to {path}"


def test_an_unwritable_directory_is_one_clear_line_before_anything_is_measured(tmp_path):
    (tmp_path / "file").touch()
    result = mains.run("benchmarks.layers", f"--workdir={tmp_path}/file/new")
    assert result.returncode == 2 and not result.stdout
    assert result.stderr.startswith("error: ") and f"{tmp_path}/file" in result.stderr
    assert result.stderr.count("\n") == 1


def test_wrong_sizes_and_names_are_named():
    with pytest.raises(ValueError, match="three or more sizes above 0, got 2,0,4"):
        layers.parse_shape(["2", "0", "4"])
    with pytest.raises(ValueError, match="unknown layer 'evonorms0'; did you mean 'evonorm_s0'"):
        layers.check_names(["evonorm_b0", "evonorms0"])


# -- The search


@pytest.mark.exhaustive
def test_screening_agrees_with_plain_jax_candidate_by_candidate(run_here):
    counts = ("--random=5", "--mutated=4", "--baseline_candidates=4")
    measured = run_here(screening, *counts, "--nocold")
    assert measured["candidates"] == {"random": 5, "mutated": 4, "plain": 4, "sample": 2}
    assert sum(measured["outcomes"].values()) == 9
    assert [row["index"] for row in measured["compared"]] == [1, 3, 5, 7]
    assert measured["equal"] == 4 and all(row["equal"] for row in measured["compared"])
    assert measured["same_on_one_device"] is True
    assert {row["plain"]["outcome"] for row in measured["compared"]} >= {"accepted", "low_quality"}
    assert [row["part"] for row in measured["parts"]] == [
        "plain JAX", "+ inert skipped", "+ duplicates skipped", "+ one program for all", "+ early ends",
        "+ all devices",
    ]  # fmt: skip
    for row, seconds in zip(measured["parts"][-2:], ("one_device", "devices"), strict=True):
        assert row["seconds"] == measured["times"][seconds] > 0
    assert measured["config"]["proxy"]["steps"] == measured["config"]["rejection"]["quality_steps"]


@pytest.mark.exhaustive
def test_a_search_finds_the_same_on_any_number_of_devices(run_here):
    measured = run_here(scaling, "--device_counts=1,2", "--rounds=2")
    assert [row["devices"] for row in measured["rows"]] == [1, 2]
    assert all(row["same"] for row in measured["rows"])
    assert measured["rows"][0]["ratio"] == 1 and measured["rows"][0]["idle_share"] == 0
    assert 0 < measured["rows"][1]["idle_share"] < 1
    assert measured["candidates"] == sum(measured["outcomes"].values()) == 16
    assert measured["outcomes"]["accepted"] > 0, "some candidates pass"


def test_calibration_measures_the_ladder_and_every_known_layer(run_here):
    measured = run_here(calibration, "--replicas=2", "--noreference")
    assert {row["layer"] for row in measured["layers"]} >= {"bn_relu", "evonorm_b0", "max(x, 0)"}
    for row in measured["layers"]:
        (curves,) = row["accuracies"].values()
        assert len(curves) == 2 and all(len(curve) == len(measured["steps"]) == 2 for curve in curves)
        assert row["replicas"] == [curve[-1] for curve in curves]
        (norm,) = row["norms"].values()
        limit = measured["config"]["rejection"]["stability_norm"]
        assert row["passes"] == (norm <= limit and curves[0][0] >= measured["threshold"])
    assert [verdict["name"][:3] for verdict in measured["verdicts"]] == ["(a)", "(b)", "(c)", "(e)"]


def ladder(pointwise, plain, full, spread=0.0):
    """Rows of a calibration with these mean accuracies on each rung."""
    means = dict(zip(calibration.CONVOLUTIONS.rungs, (pointwise, plain, full), strict=True))
    return [
        {
            "layer": text,
            "rung": rung,
            "replicas": [means[rung] - spread, means[rung] + spread],
            "passes": True,
        }
        for rung, texts in calibration.CONVOLUTIONS.rungs.items()
        for text in texts
    ]


@pytest.mark.parametrize(
    ("rows", "failed"),
    [
        (ladder(0.4, 0.6, 0.8, 0.01), ""),
        (ladder(0.57, 0.6, 0.8, 0.01), "a"),  # 3 points are 2.1 deviations of 1.41 points
        (ladder(0.4, 0.8, 0.6, 0.01), "b"),
        (ladder(0.2, 0.6, 0.8, 0.02), "c"),
        (
            [*ladder(0.4, 0.6, 0.8), {"layer": "frn", "rung": "known", "replicas": [0.9] * 2, "passes": 0}],
            "e",
        ),
    ],
)
def test_the_verdicts_of_a_calibration(rows, failed):
    found = calibration.verdicts(rows, {"here": 1.0, "reference": 1.0})
    assert "".join(verdict.name[1] for verdict in found if not verdict.passed) == failed
    assert [verdict.name[1] for verdict in found] == list("abcde")
    costly = calibration.verdicts(rows, {"here": 1.1, "reference": 1.0})
    assert not costly[3].passed and costly[3].evidence == "1.10 s of device time against 1.00 s"


def test_a_search_for_token_layers_has_a_ladder_of_its_own():
    assert calibration.ladder_of(search_mnist5k_tokens.get_config()) is calibration.TOKENS
    assert calibration.ladder_of(search_mnist5k.get_config()) is calibration.CONVOLUTIONS
    rows = [
        {"layer": text, "rung": rung, "replicas": [mean, mean + 0.01], "passes": True}
        for mean, (rung, texts) in zip((0.4, 0.6), calibration.TOKENS.rungs.items(), strict=True)
        for text in texts
    ]
    found = calibration.verdicts(rows, {"here": 1.0})
    assert all(verdict.passed for verdict in found)
    assert found[1].evidence == "40.5 < 60.5, best pointwise, normalizer"


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


def test_the_cost_model_reads_a_history_and_the_results_of_another_machine(run_here, config, tmp_path):
    with claim_workdir(tmp_path / "search", config.to_dict()) as history:
        pass
    scores = {"one_block": 0.5}
    evaluations = [
        Evaluation("inert", {}),
        Evaluation("unstable", {}, steps=4),
        Evaluation("low_quality", {}, steps=10 + 30),
        Evaluation("accepted", {}, scores, steps=10 + 60),
    ]
    records = [Record(i, Proposal(CATALOG["evonorm_s0"], "random"), e) for i, e in enumerate(evaluations)]
    lines = [json.dumps(record.to_json()) + "\n" for record in records]
    (history / "history.jsonl").write_text("".join(lines))
    gpu = {"name": "one_block", "operations": 1e6, "validation": 5, "universal": 0.4, "compiled": 0.1}
    machine = {"platform": "gpu", "device": "a GPU", "devices": 2, "cores": 8}
    other = {"machine": machine, "anchors": [gpu | {"build": 1000.0}]}
    (tmp_path / "gpu.json").write_text(json.dumps(other))

    reads = (f"--history={history}", f"--measured={tmp_path}/gpu.json")
    costs = run_here(cost_model, *reads, "--nocold", "--gpu_price=3", "--measure_steps=2")
    assert costs["mix"] == {
        "examined": 4, "untrained": 0.25, "rejected": 0.5, "trained": 0.25,
        "stability_steps": 6.0, "quality_steps": 7.5, "quality_tests": 0.25,
    }  # fmt: skip
    (anchor,) = costs["anchors"]
    assert min(anchor[key] for key in ("operations", "validation", "universal", "compiled", "build")) > 0
    assert [row["basis"] for row in costs["rows"]] == ["measured", "measured", "assumed", "assumed"]
    cpu, gpu, *_ = costs["rows"]
    assert gpu["device_seconds"] == pytest.approx({
        "stability": 6 * 2 * 0.4,  # the batch of the test is as large as that of the training
        "quality": (7.5 + 0.25 * 5) * 0.4,
        "training": 0.25 * (60 + 2 * 5) * 0.4,
    })  # fmt: skip
    assert gpu["hours"]["config"] == pytest.approx(60 * sum(gpu["device_seconds"].values()) / 2 / 3600)
    assert gpu["dollars"]["paper"] == pytest.approx(gpu["hours"]["paper"] * 2 * 3)
    cores = costs["machine"]["cores"]
    assert cpu["hours"]["paper"] == pytest.approx(5000 * 2 * 48 / cores)
    assert any("3 a GPU" in line for line in costs["assumptions"])


def test_wrong_settings_of_search_benchmarks_are_named(config):
    with pytest.raises(ValueError, match="at least one candidate"):
        screening.measure(config, random=0, mutated=0, baseline=1)
    config.rejection.enabled = False
    with pytest.raises(ValueError, match=r"rejection\.enabled must be true"):
        screening.measure(config, random=1, mutated=0, baseline=1)
    with pytest.raises(WorkdirError, match=r"no such work directory: .*nowhere"):
        cost_model.mix_of_search("nowhere")


@pytest.mark.parametrize("module, flag, message", [
    (scaling, "--device_counts=2,0", "whole numbers above 0, got '0'"),
    (cost_model, "--measured=nowhere.json", "--measured=nowhere.json is no cost_model.json"),
])  # fmt: skip
def test_wrong_flags_of_search_benchmarks_are_named(run_here, module, flag, message):
    with pytest.raises(ValueError, match=message):
        run_here(module, flag)


# -- Training


@pytest.mark.exhaustive
def test_trainings_are_measured_beside_the_first(run_here):
    sizes = ("--model=resnet_tiny", "--image_size=8", "--batch_size=8", "--steps=1", "--rounds=1")
    others = ("--layers=bn_relu,evonorm_s0", "--peak_tflops=1")
    measured = run_here(training, *sizes, *others, search=False)
    assert [row["layer"] for row in measured["rows"]] == ["bn_relu", "evonorm_s0"]
    assert measured["rows"][0]["ratio"] == 1
    assert all(0 < row["peak_share"] < 1 and row["operations"] > 1e5 for row in measured["rows"])
    network = get_model("resnet_tiny").build(norm_act("bn_relu"), 1000)  # classes; channels are in the images
    images = jnp.zeros((1, 8, 8, 3))
    made = jax.eval_shape(lambda key: network.init(key, images, train=False)["params"], jax.random.key(0))
    assert measured["rows"][0]["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(made))
