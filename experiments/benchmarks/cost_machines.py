"""From measured figures and assumptions to hours and dollars: the tables of `cost_model.py`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.benchmarks.search_cost import (
    AnchorCost,
    Machine,
    Mix,
    Protocol,
    at_speed,
    device_seconds,
    paper_candidates,
    training_operations,
    training_seconds,
)

TPU_SLICES = (8, 256)


class Assumed(NamedTuple):
    """What is not measured.

    Attributes:
      core_price, gpu_price, tpu_price: dollars an hour for a CPU core, a GPU, a TPU v5e chip.
      gpu_tflops, tpu_tflops: peaks in TFLOP/s.
      gpu_share, tpu_share: of the peak, what a compiled step sustains.
    """

    core_price: float
    gpu_price: float
    gpu_tflops: float
    gpu_share: float
    tpu_price: float
    tpu_tflops: float
    tpu_share: float


def machines(measured: Sequence[Mapping[str, Any]], assumed: Assumed) -> list[Machine]:
    """The measured machines, a GPU unless one is measured, and slices of TPU v5e.

    Args:
      measured: objects of `machine` and `anchors`, this machine's first, of one platform each.
      assumed: see `Assumed`.
    """
    rows, platforms = [], {}
    for figures in measured:
        what, anchors = figures["machine"], [AnchorCost(**anchor) for anchor in figures["anchors"]]
        platforms[what["platform"]] = anchors
        prices = {
            "cpu": what["cores"] * assumed.core_price,
            "gpu": what["devices"] * assumed.gpu_price,
            "tpu": what["devices"] * assumed.tpu_price,
        }
        unit = "cores" if what["platform"] == "cpu" else "devices"
        name = f"{what[unit]} {unit}, {what['device']}"
        rows.append(Machine(name, what["devices"], anchors, prices[what["platform"]], "measured"))
    ours = rows[0].anchors
    if "gpu" not in platforms:
        anchors = at_speed(ours, 1e12 * assumed.gpu_tflops * assumed.gpu_share)
        rows.append(Machine("one GPU", 1, anchors, assumed.gpu_price, "assumed"))
    chip, basis = platforms.get("tpu"), "measured on fewer"
    if chip is None:
        chip, basis = at_speed(ours, 1e12 * assumed.tpu_tflops * assumed.tpu_share), "assumed"
    for chips in TPU_SLICES:
        rows.append(Machine(f"TPU v5e-{chips}", chips, chip, chips * assumed.tpu_price, basis))
    return rows


def model(
    measured: Sequence[Mapping[str, Any]], mix: Mix, protocol: Protocol, budget: int, assumed: Assumed
) -> dict[str, Any]:
    """Hours and dollars on every machine, for the config's budget and for the paper's.

    Args:
      measured: as of `machines`.
      mix: what becomes of candidates.
      protocol: the sizes of the search.
      budget: candidates of the config.
      assumed: see `Assumed`.

    Returns:
      A JSON object; the paper's budget is None where no CPU is among the machines.
    """
    rows = machines(measured, assumed)
    by_platform = {figures["machine"]["platform"]: place for place, figures in enumerate(measured)}
    paper = None
    if "cpu" in by_platform:
        place = by_platform["cpu"]
        paper = paper_candidates(rows[place], measured[place]["machine"]["cores"], mix, protocol)
    table = []
    for machine in rows:
        stages = device_seconds(machine.anchors, mix, protocol)
        hours = {"config": machine.hours(mix, protocol, budget)}
        hours["paper"] = None if paper is None else machine.hours(mix, protocol, paper)
        table.append({
            "machine": machine.name,
            "devices": machine.devices,
            "basis": machine.basis,
            "price_per_hour": machine.price,
            "device_seconds": dict(zip(("stability", "quality", "training"), stages, strict=True)),
            "hours": hours,
            "dollars": {key: None if h is None else h * machine.price for key, h in hours.items()},
        })  # fmt: skip
    return {
        "mix": mix._asdict(),
        "candidates": {"config": budget, "paper": paper},
        "operations_per_training": training_operations(rows[0].anchors, protocol.steps),
        "trainings_per_hour": {
            anchor.name: [3600 / seconds for seconds in training_seconds(anchor, protocol.steps)]
            for anchor in rows[0].anchors
        },
        "rows": table,
        "assumed": assumed._asdict(),
        "assumptions": assumptions(assumed, rows),
    }


def assumptions(assumed: Assumed, rows: Sequence[Machine]) -> list[str]:
    """What the figures rest on besides measurements, for people."""
    lines = [
        "a core of the paper's workers is as fast as one here, and did per candidate what this program does",
        "candidates fare on these anchors, all search long, as in the history or the sample that was read",
        "every candidate costs what EvoNorm-B0 costs; if it is rejected, a step costs what it costs on the "
        "average anchor",
        "a step of the stability test is two gradients, in proportion to its batch; an operation of a "
        "validation takes as long as one of a training step",
        "every training runs in the executor that takes less time for it; builds beside each other take no "
        "longer than one",
        "no device ever waits: so many devices are so many times as fast, hosts too",
        f"prices in dollars an hour: {assumed.core_price:g} a core, {assumed.gpu_price:g} a GPU, "
        f"{assumed.tpu_price:g} a TPU v5e chip; list prices differ by place and time, check them",
    ]
    guesses = {
        "one GPU": ("the GPU", assumed.gpu_share, assumed.gpu_tflops),
        f"TPU v5e-{TPU_SLICES[0]}": ("a TPU v5e chip", assumed.tpu_share, assumed.tpu_tflops),
    }
    for machine in rows:
        if machine.basis == "assumed" and machine.name in guesses:
            name, share, peak = guesses[machine.name]
            lines.append(
                f"{name} sustains {100 * share:g} % of {peak:g} TFLOP/s in a compiled step, with latencies; "
                "its universal program is slower by the ratio measured here; it waits for its builds, which "
                "take as long as here"
            )
    return lines
