"""The cost model, by hand-computed numbers."""

import pytest
from support import one_block

from evonorms_jax.evolution.history import Evaluation
from experiments.benchmarks.cost_model import mix_of_sample
from experiments.benchmarks.search_cost import (
    AnchorCost,
    Assumed,
    Machine,
    Mix,
    Protocol,
    at_speed,
    device_seconds,
    mix_of,
    model,
    paper_candidates,
    training_operations,
)

config = one_block.config

# Two anchors, of which one is worth a build and the other is not.
ANCHORS = (
    AnchorCost("a", operations=1e9, validation=10, universal=2.0, compiled=1.0, build=50.0),
    AnchorCost("b", operations=3e9, validation=20, universal=4.0, compiled=2.0, build=1000.0),
)
MIX = Mix(
    100, untrained=0.5, rejected=0.4, trained=0.1, stability_steps=6, quality_steps=30, quality_tests=0.5
)
PROTOCOL = Protocol(steps=100, stability_batch=1 / 8)
ASSUMED = Assumed(0.5, 3.0, gpu_tflops=2.0, gpu_share=0.5, tpu_price=1.0, tpu_tflops=4.0, tpu_share=0.25)


def test_the_mix_of_a_history_by_hand():
    evaluations = [
        Evaluation("inert", {}),
        Evaluation("duplicate", {}, duplicate_of=3),
        Evaluation("unstable", {}, steps=4),
        Evaluation("low_quality", {}, steps=10 + 30),
        Evaluation("low_quality", {}, steps=10 + 45),
        Evaluation("accepted", {}, {"a": 0.5}, steps=10 + 600),
        Evaluation("diverged", {}, steps=10 + 31),
        Evaluation("batch_dependent", {}),
    ]
    mix = mix_of(evaluations, stability_steps=10, quality_steps=30)
    assert mix == Mix(8, 3 / 8, 3 / 8, 2 / 8, (4 + 4 * 10) / 8, (30 + 45) / 8, (1 + 2) / 8)
    with pytest.raises(ValueError, match="no candidate yet"):
        mix_of([], stability_steps=10, quality_steps=30)


def test_candidates_examined_here_give_a_mix_as_well(config):
    mix = mix_of_sample(16, config)
    assert mix.examined == 16 and mix.untrained + mix.rejected + mix.trained == 1
    assert min(mix.untrained, mix.trained) > 0
    assert 0 < mix.stability_steps <= 10 * (mix.rejected + mix.trained)


def test_the_cost_of_a_candidate_by_hand():
    # 6 * 2 gradients on an eighth of a batch * 2 s; 30 * 3 s + half a validation of 50 s, the mean of both;
    # a tenth of 50 s of building + 120 * 1 s, and of 140 * 4 s where it is not worth to build.
    assert device_seconds(ANCHORS, MIX, PROTOCOL) == pytest.approx((3, 115, 73))
    assert training_operations(ANCHORS, 100) == 1e9 * 120 + 3e9 * 140
    machine = Machine("two devices", 2, ANCHORS, 1.0, "measured")
    assert machine.hours(MIX, PROTOCOL, 3600) == pytest.approx(191 / 2)
    # 5,000 workers of two cores for 48 hours; two devices on four cores.
    assert paper_candidates(machine, 4, MIX, PROTOCOL) == pytest.approx(1_728_000_000 / (191 * 2))


def test_costs_at_another_speed_keep_the_ratio_of_the_programs():
    fast = at_speed(ANCHORS, 1e12)
    assert [(a.universal, a.compiled, a.build) for a in fast] == [(0.002, 0.001, 50), (0.006, 0.003, 1000)]


def test_machines_by_hand():
    anchors = [anchor._asdict() for anchor in ANCHORS]
    cpu = {"platform": "cpu", "device": "cpu", "devices": 2, "cores": 4}
    figures = model([{"machine": cpu, "anchors": anchors}], MIX, PROTOCOL, 3600, ASSUMED)
    assert figures["candidates"] == {"config": 3600, "paper": pytest.approx(1_728_000_000 / 382)}
    # 120 steps of 2 s, or a build of 50 s and 120 of 1 s; 140 of 4 s, or 1,000 s and 140 of 2 s.
    assert figures["trainings_per_hour"] == {
        "a": pytest.approx([3600 / 240, 3600 / 170]), "b": pytest.approx([3600 / 560, 3600 / 1280])
    }  # fmt: skip
    own, gpu, small, large = figures["rows"]
    assert own["hours"] == pytest.approx({"config": 95.5, "paper": 120_000})
    assert own["dollars"]["config"] == pytest.approx(95.5 * 4 * 0.5)
    assert [row["basis"] for row in figures["rows"]] == ["measured", "assumed", "assumed", "assumed"]
    # 1e12 operations a second on the GPU and on a chip: a training needs no build any more.
    assert gpu["device_seconds"] == pytest.approx({
        "stability": 6 * 2 * (1 / 8) * 0.002,
        "quality": 30 * 0.004 + 0.5 * (10 * 0.002 + 20 * 0.006) / 2,
        "training": 0.1 * (120 * 0.002 + 140 * 0.006),
    })  # fmt: skip
    assert small["device_seconds"] == gpu["device_seconds"] and small["devices"] == 8
    assert small["hours"]["paper"] == pytest.approx(32 * large["hours"]["paper"])
    assert small["dollars"]["paper"] == pytest.approx(large["dollars"]["paper"])


def test_without_a_cpu_the_budget_of_the_paper_is_unknown_and_a_measured_gpu_is_not_assumed():
    anchors = [anchor._asdict() for anchor in ANCHORS]
    gpu = {"platform": "gpu", "device": "a GPU", "devices": 2, "cores": 16}
    figures = model([{"machine": gpu, "anchors": anchors}], MIX, PROTOCOL, 3600, ASSUMED)
    assert figures["candidates"]["paper"] is None
    assert [row["machine"] for row in figures["rows"]] == ["2 devices, a GPU", "TPU v5e-8", "TPU v5e-256"]
    assert figures["rows"][0]["hours"] == {"config": pytest.approx(95.5), "paper": None}
    assert figures["rows"][0]["dollars"] == {"config": pytest.approx(95.5 * 2 * 3), "paper": None}
    speeds = [line for line in figures["assumptions"] if "sustains" in line]
    assert len(speeds) == 1 and speeds[0].startswith("a TPU v5e chip sustains 25 % of 4 TFLOP/s")


def test_rooflines_of_a_compile_check_replace_the_assumed_share_by_hand():
    cpu = {"platform": "cpu", "device": "cpu", "devices": 2, "cores": 4}
    measured = [{"machine": cpu, "anchors": [anchor._asdict() for anchor in ANCHORS]}]

    def check(chip, **seconds):
        programs = [{"program": name, "step": {"roofline_seconds": s}} for name, s in seconds.items()]
        return {"chip": {"name": chip}, "programs": programs}

    found = {"a: universal training": 0.2, "a: one compiled candidate": 0.1, "b: universal training": 0.4}
    costs = model(measured, MIX, PROTOCOL, 3600, ASSUMED, [check("v5e", **found), check("v6e", **found)])
    rows = {row["machine"]: row for row in costs["rows"]}
    assert [row["basis"] for row in costs["rows"]] == ["measured", "assumed", *4 * ["bound"]]
    # No build pays: 120 steps of 0.2 s, 140 of 0.4 s.
    assert rows["TPU v5e-8"]["device_seconds"]["training"] == pytest.approx(0.1 * (24 + 56))
    assert rows["TPU v6e-8"]["price_per_hour"] == pytest.approx(8 * 2.7)
    assert any(line.startswith("a bound: every step") for line in costs["assumptions"])
    assert not any("TPU v5e chip sustains" in line for line in costs["assumptions"])
    with pytest.raises(ValueError, match="no universal program of b that fits"):
        model(measured, MIX, PROTOCOL, 3600, ASSUMED, [check("v5e", **dict(list(found.items())[:2]))])
    with pytest.raises(ValueError, match="there are prices of v5e, v6e, the compile_check is of v4"):
        model(measured, MIX, PROTOCOL, 3600, ASSUMED, [check("v4", **found)])
