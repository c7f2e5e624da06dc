"""Arithmetic of the cost model: from measured times and assumptions to hours and dollars of a search.

The mean cost of an examined candidate is the sum of its steps of the stability test, the steps and
validations of the quality test if that rejects it, and, if it is trained in full, all steps and two
validations on every anchor in the faster of the two executors. `cost_model.py` measures, this file only
computes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.history import Evaluation

#: The paper's budget, in hours of a core: 5,000 workers of two cores for two days.
PAPER_CORE_HOURS = 5_000 * 2 * 2 * 24
TPU_SLICES = (8, 256)
_GRADIENTS = 2  # of one step of the stability test: at the weights, and a little further along


class AnchorCost(NamedTuple):
    """The cost of an anchor.

    Attributes:
      name: name of the anchor.
      operations: operations of a training step of one candidate.
      validation: operations of a validation, as a multiple of those of a training step.
      universal: seconds of a step on one device in the universal program.
      compiled: seconds of a step on one device in a program compiled for the candidate.
      build: seconds to build that program.
    """

    name: str
    operations: float
    validation: float
    universal: float
    compiled: float
    build: float


class Mix(NamedTuple):
    """The mean course of an examined candidate.

    Attributes:
      examined: number of candidates in the mean.
      untrained: share that is inert, a duplicate, or depends on the batch where it must not.
      rejected: share that fails the stability or the quality test.
      trained: share that is trained in full.
      stability_steps: steps of the stability test.
      quality_steps: training steps before a rejection for quality.
      quality_tests: validations before a rejection for quality.
    """

    examined: int
    untrained: float
    rejected: float
    trained: float
    stability_steps: float
    quality_steps: float
    quality_tests: float


class Protocol(NamedTuple):
    """The sizes of a search.

    Attributes:
      steps: steps of a full training.
      stability_batch: batch of the stability test as a share of the training batch.
    """

    steps: int
    stability_batch: float


class Machine(NamedTuple):
    """A machine with devices that work side by side.

    Attributes:
      name: name in the table.
      devices: number of devices.
      anchors: costs of the anchors on one device.
      price: dollars an hour for all devices.
      basis: "measured", "measured on fewer" or "assumed".
    """

    name: str
    devices: int
    anchors: Sequence[AnchorCost]
    price: float
    basis: str

    def hours(self, mix: Mix, protocol: Protocol, candidates: float) -> float:
        """Hours for a number of examined candidates with all devices busy."""
        return candidates * sum(device_seconds(self.anchors, mix, protocol)) / self.devices / 3600


#: The meaning of each field of `Assumed`.
MEANINGS = {
    "core_price": "dollars an hour for a CPU core",
    "gpu_price": "dollars an hour for a GPU",
    "gpu_tflops": "peak of a GPU in float32, TFLOP/s",
    "gpu_share": "share of that peak that a compiled step sustains",
    "tpu_price": "dollars an hour for a TPU v5e chip",
    "tpu_tflops": "peak of a TPU v5e chip in bfloat16, TFLOP/s",
    "tpu_share": "share of that peak that a compiled step sustains",
    "v6e_price": "dollars an hour for a TPU v6e chip",
}


class Assumed(NamedTuple):
    """Prices and speeds that are assumed and not measured, see `MEANINGS`."""

    core_price: float = 0.05
    gpu_price: float = 4.0
    gpu_tflops: float = 67.0
    gpu_share: float = 0.05
    tpu_price: float = 1.2
    tpu_tflops: float = 197.0
    tpu_share: float = 0.02
    v6e_price: float = 2.7


# -- A candidate


def mix_of(evaluations: Iterable[Evaluation], *, stability_steps: int, quality_steps: int) -> Mix:
    """The mean over the evaluations of a search.

    Args:
      evaluations: at least one evaluation.
      stability_steps: steps of the stability test of the search.
      quality_steps: steps of its quality test.

    Raises:
      ValueError: if there is no evaluation.
    """
    examined = rejected = trained = climbed = steps = tests = 0
    for evaluation in evaluations:
        examined += 1
        if evaluation.outcome == "unstable":
            rejected += 1
            climbed += evaluation.steps
        elif evaluation.outcome == "low_quality":
            own = evaluation.steps - stability_steps
            rejected += 1
            climbed += stability_steps
            steps += own
            tests += math.ceil(own / quality_steps)
        elif evaluation.outcome in ("diverged", "accepted"):
            trained += 1
            climbed += stability_steps
    if not examined:
        raise UserError("the history of the search has no candidate yet")
    shares = (count / examined for count in (rejected, trained, climbed, steps, tests))
    return Mix(examined, (examined - rejected - trained) / examined, *shares)


def device_seconds(anchors: Sequence[AnchorCost], mix: Mix, protocol: Protocol) -> tuple[float, float, float]:
    """Device seconds of a mean candidate for stability test, quality test and full training.

    Args:
      anchors: costs of the anchors. The first is the cheapest, on which the stability test runs.
      mix: mean course of a candidate.
      protocol: sizes of the search.
    """
    of_climb = _GRADIENTS * protocol.stability_batch * anchors[0].universal
    # The history does not say for other anchors which of them would have rejected a candidate, so a step
    # before a rejection costs the mean over the anchors.
    of_step = sum(anchor.universal for anchor in anchors) / len(anchors)
    of_test = sum(anchor.universal * anchor.validation for anchor in anchors) / len(anchors)
    return (
        mix.stability_steps * of_climb,
        mix.quality_steps * of_step + mix.quality_tests * of_test,
        mix.trained * sum(min(training_seconds(anchor, protocol.steps)) for anchor in anchors),
    )


def training_seconds(anchor: AnchorCost, steps: int) -> tuple[float, float]:
    """Seconds of a full training on an anchor: in the universal program, and compiled with its build.

    A full training has two validations, after the quality test and at the end.
    """
    passes = steps + 2 * anchor.validation
    return passes * anchor.universal, anchor.build + passes * anchor.compiled


def training_operations(anchors: Sequence[AnchorCost], steps: int) -> float:
    """Operations of a full training on all anchors with its two validations."""
    return sum(anchor.operations * (steps + 2 * anchor.validation) for anchor in anchors)


def at_speed(anchors: Sequence[AnchorCost], operations_per_second: float) -> list[AnchorCost]:
    """The costs on a device that sustains this speed in a program compiled for a candidate.

    The universal program is slower by the measured ratio, and a build takes the measured time.
    """
    costs = []
    for anchor in anchors:
        compiled = anchor.operations / operations_per_second
        ratio = anchor.universal / anchor.compiled
        costs.append(anchor._replace(compiled=compiled, universal=ratio * compiled))
    return costs


def paper_candidates(machine: Machine, cores: int, mix: Mix, protocol: Protocol) -> float:
    """Number of candidates in the paper's budget, at the core time of a candidate on this machine."""
    each = sum(device_seconds(machine.anchors, mix, protocol)) * cores / machine.devices
    return 3600 * PAPER_CORE_HOURS / each


# -- Machines


def bounded(check: Mapping[str, Any], anchors: Sequence[AnchorCost]) -> list[AnchorCost]:
    """The costs on a TPU chip if every step takes its roofline time, which is a bound from below.

    Args:
      check: JSON object of `experiments.compile_check` for the search.
      anchors: costs on this machine. They give the operations and the time of a build.

    Raises:
      UserError: if the check has no universal program of an anchor.
    """
    seconds = {one["program"]: one["step"]["roofline_seconds"] for one in check["programs"]}
    costs = []
    for anchor in anchors:
        universal = seconds.get(f"{anchor.name}: universal training")
        if not universal:
            raise UserError(f"the compile_check has no universal program of {anchor.name} that fits")
        compiled = seconds.get(f"{anchor.name}: one compiled candidate") or universal
        costs.append(anchor._replace(universal=universal, compiled=compiled))
    return costs


def machines(
    measured: Sequence[Mapping[str, Any]], assumed: Assumed, checks: Sequence[Mapping[str, Any]] = ()
) -> list[Machine]:
    """The measured machines, an assumed GPU unless one is measured, and slices of TPU v5e.

    Args:
      measured: JSON objects with `machine` and `anchors`, each of another platform. The first is of this
        machine.
      assumed: prices and speeds that are not measured.
      checks: JSON objects of `experiments.compile_check`. Each gives slices of its chip by rooflines. That
        of v5e replaces the assumed share of the peak.
    """
    rows, platforms = [], {}
    for one in measured:
        place, anchors = one["machine"], [AnchorCost(**anchor) for anchor in one["anchors"]]
        platforms[place["platform"]] = anchors
        prices = {
            "cpu": place["cores"] * assumed.core_price,
            "gpu": place["devices"] * assumed.gpu_price,
            "tpu": place["devices"] * assumed.tpu_price,
        }
        unit = "cores" if place["platform"] == "cpu" else "devices"
        name = f"{place[unit]} {unit}, {place['device']}"
        rows.append(Machine(name, place["devices"], anchors, prices[place["platform"]], "measured"))
    ours = rows[0].anchors
    if "gpu" not in platforms:
        anchors = at_speed(ours, 1e12 * assumed.gpu_tflops * assumed.gpu_share)
        rows.append(Machine("one GPU", 1, anchors, assumed.gpu_price, "assumed"))
    prices = {"v5e": assumed.tpu_price, "v6e": assumed.v6e_price}
    slices = {check["chip"]["name"]: (bounded(check, ours), "bound") for check in checks}
    if "tpu" in platforms:
        slices["v5e"] = platforms["tpu"], "measured on fewer"
    speed = 1e12 * assumed.tpu_tflops * assumed.tpu_share
    slices.setdefault("v5e", (at_speed(ours, speed), "assumed"))
    for chip, (anchors, basis) in sorted(slices.items()):
        if chip not in prices:
            raise UserError(f"there are prices of {', '.join(prices)}, the compile_check is of {chip}")
        for chips in TPU_SLICES:
            rows.append(Machine(f"TPU {chip}-{chips}", chips, anchors, chips * prices[chip], basis))
    return rows


def model(
    measured: Sequence[Mapping[str, Any]],
    mix: Mix,
    protocol: Protocol,
    budget: int,
    assumed: Assumed,
    checks: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Hours and dollars on every machine for the budget of the config and for the paper's.

    Args:
      measured: JSON objects, as in `machines`.
      mix: mean course of a candidate.
      protocol: sizes of the search.
      budget: number of candidates of the config.
      assumed: prices and speeds that are not measured.
      checks: JSON objects of `experiments.compile_check`.

    Returns:
      A JSON object. The paper's budget is None if no CPU is among the machines.
    """
    rows = machines(measured, assumed, checks)
    by_platform = {one["machine"]["platform"]: place for place, one in enumerate(measured)}
    paper = None
    if "cpu" in by_platform:
        place = by_platform["cpu"]
        paper = paper_candidates(rows[place], measured[place]["machine"]["cores"], mix, protocol)
    return {
        "mix": mix._asdict(),
        "candidates": {"config": budget, "paper": paper},
        "operations_per_training": training_operations(rows[0].anchors, protocol.steps),
        "trainings_per_hour": {
            anchor.name: [3600 / seconds for seconds in training_seconds(anchor, protocol.steps)]
            for anchor in rows[0].anchors
        },
        "rows": [_row(machine, mix, protocol, budget, paper) for machine in rows],
        "assumed": assumed._asdict(),
        "assumptions": assumptions(assumed, rows),
    }


def _row(machine: Machine, mix: Mix, protocol: Protocol, budget: int, paper: float | None) -> dict[str, Any]:
    stages = device_seconds(machine.anchors, mix, protocol)
    hours = {"config": machine.hours(mix, protocol, budget)}
    hours["paper"] = None if paper is None else machine.hours(mix, protocol, paper)
    return {
        "machine": machine.name,
        "devices": machine.devices,
        "basis": machine.basis,
        "price_per_hour": machine.price,
        "device_seconds": dict(zip(("stability", "quality", "training"), stages, strict=True)),
        "hours": hours,
        "dollars": {key: None if h is None else h * machine.price for key, h in hours.items()},
    }


def assumptions(assumed: Assumed, rows: Sequence[Machine]) -> list[str]:
    """All assumptions behind the results, as sentences."""
    lines = [
        "a core of the paper's workers is as fast as one here and did the work of this program for each "
        "candidate",
        "the outcomes of candidates on these anchors, throughout the search, are those of the history or of "
        "the sample",
        "every candidate costs as much as EvoNorm-B0; before a rejection a step costs the mean over the "
        "anchors",
        "a step of the stability test is two gradients, in proportion to its batch; an operation of a "
        "validation takes as long as one of a training step",
        "every training runs in the faster executor; simultaneous builds take no longer than one",
        "devices are never idle: n devices are n times as fast, on several hosts too",
        f"prices in dollars an hour: {assumed.core_price:g} a core, {assumed.gpu_price:g} a GPU, "
        f"{assumed.tpu_price:g} a TPU v5e chip, {assumed.v6e_price:g} a v6e chip; list prices differ by "
        "place and time, check them",
    ]
    if any(machine.basis == "bound" for machine in rows):
        lines.append(
            "a bound: every step of EvoNorm-B0 takes the roofline time of the program that XLA:TPU built, "
            "max(FLOPs / peak, bytes / bandwidth) by the data sheet of the chip, with all bytes counted as "
            "those of HBM; nothing was run on a TPU; its builds take as long as those here"
        )
    guesses = {
        "one GPU": ("the GPU", assumed.gpu_share, assumed.gpu_tflops),
        f"TPU v5e-{TPU_SLICES[0]}": ("a TPU v5e chip", assumed.tpu_share, assumed.tpu_tflops),
    }
    for machine in rows:
        if machine.basis == "assumed" and machine.name in guesses:
            name, share, peak = guesses[machine.name]
            lines.append(
                f"{name} sustains {100 * share:g} % of {peak:g} TFLOP/s in a compiled step, latencies "
                "included; its universal program is slower by the ratio measured here; it waits for its "
                "builds, which take as long as here"
            )
    return lines
