"""What a search costs on a machine: the arithmetic of `cost_model.py`; nothing is measured here.

A candidate costs, on average over all that are examined: its steps of the stability test; if it is then
rejected for its quality, the steps and validations of that test; if it is trained in full, all steps and two
validations on every anchor, by the executor that needs less time for it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.history import Evaluation

#: The paper's budget, in hours of a core: 5,000 workers of two cores for two days.
PAPER_CORE_HOURS = 5_000 * 2 * 2 * 24
_GRADIENTS = 2  # of one step of the stability test: at the weights, and a little way along


class AnchorCost(NamedTuple):
    """What an anchor costs.

    Attributes:
      name: of the anchor.
      operations: of a training step of one candidate.
      validation: operations of a validation, as a multiple of a training step's.
      universal: seconds of a step on one device in the universal program.
      compiled: seconds of a step on one device in a program made for the candidate.
      build: seconds to build that.
    """

    name: str
    operations: float
    validation: float
    universal: float
    compiled: float
    build: float


class Mix(NamedTuple):
    """What an examined candidate goes through, on average.

    Attributes:
      examined: over how many candidates.
      untrained: share that is inert, a duplicate, or depends on the batch where it must not.
      rejected: share that fails the stability or the quality test.
      trained: share that is trained in full.
      stability_steps: steps of the stability test.
      quality_steps: training steps before a rejection for quality.
      quality_tests: validations before one.
    """

    examined: int
    untrained: float
    rejected: float
    trained: float
    stability_steps: float
    quality_steps: float
    quality_tests: float


class Protocol(NamedTuple):
    """Steps of a full training, and the stability test's batch as a share of the training's."""

    steps: int
    stability_batch: float


class Machine(NamedTuple):
    """Devices that work side by side, the anchors' costs on one of them, and dollars an hour for all."""

    name: str
    devices: int
    anchors: Sequence[AnchorCost]
    price: float
    basis: str

    def hours(self, mix: Mix, protocol: Protocol, candidates: float) -> float:
        """Hours for so many examined candidates, all devices busy."""
        return candidates * sum(device_seconds(self.anchors, mix, protocol)) / self.devices / 3600


def mix_of(
    evaluations: Iterable[Evaluation], *, stability_steps: int, quality_steps: int, replicas: int
) -> Mix:
    """The averages over a search's evaluations.

    Args:
      evaluations: at least one.
      stability_steps, quality_steps: of the search's tests.
      replicas: of its proxy task; its training steps count once for each.

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
            own = (evaluation.steps - stability_steps) / replicas
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
    """Seconds of one device for an average candidate: stability, quality, full training.

    Args:
      anchors: the cheapest, on which the stability test runs, first.
      mix: what the candidate goes through.
      protocol: the sizes of the search.
    """
    of_climb = _GRADIENTS * protocol.stability_batch * anchors[0].universal
    # Which anchor rejected a candidate depends on the anchors: a step costs what it costs on average.
    of_step = sum(anchor.universal for anchor in anchors) / len(anchors)
    of_test = sum(anchor.universal * anchor.validation for anchor in anchors) / len(anchors)
    return (
        mix.stability_steps * of_climb,
        mix.quality_steps * of_step + mix.quality_tests * of_test,
        mix.trained * sum(min(training_seconds(anchor, protocol.steps)) for anchor in anchors),
    )


def training_seconds(anchor: AnchorCost, steps: int) -> tuple[float, float]:
    """Seconds of a full training on an anchor, in the universal program, and compiled with its build.

    Validated after the quality test and at the end.
    """
    passes = steps + 2 * anchor.validation
    return passes * anchor.universal, anchor.build + passes * anchor.compiled


def training_operations(anchors: Sequence[AnchorCost], steps: int) -> float:
    """Operations of a full training on all anchors, its two validations included."""
    return sum(anchor.operations * (steps + 2 * anchor.validation) for anchor in anchors)


def at_speed(anchors: Sequence[AnchorCost], operations_per_second: float) -> list[AnchorCost]:
    """The costs on a device that sustains so many operations a second in a program made for a candidate.

    The universal program is slower than that by the measured ratio, and a build takes as long as measured.
    """
    costs = []
    for anchor in anchors:
        compiled = anchor.operations / operations_per_second
        ratio = anchor.universal / anchor.compiled
        costs.append(anchor._replace(compiled=compiled, universal=ratio * compiled))
    return costs


def paper_candidates(machine: Machine, cores: int, mix: Mix, protocol: Protocol) -> float:
    """Candidates that the paper's budget pays for, at the core time that one takes on this machine."""
    each = sum(device_seconds(machine.anchors, mix, protocol)) * cores / machine.devices
    return 3600 * PAPER_CORE_HOURS / each
