"""The tests that a candidate must pass, one function each, in order of cost.

Each returns None for a pass, and otherwise its evidence for the history. `inert`, `fingerprint` and
`batch_dependent` need no training, and agree with the verdict that training would give
(`tests/evolution/evaluator_test.py`). `unstable` and `low_quality` are the rejection protocols of
arXiv 2004.02967, section 3.3.
"""

import functools
import hashlib
import math
from typing import Any, NamedTuple

import numpy as np

from evonorms_jax.search_space import Graph, evaluate_reference, reference_batch_moments

Evidence = dict[str, Any]


class RejectionSettings(NamedTuple):
    """The keys of `config.rejection`.

    Attributes:
      enabled: whether to test dependence on x, stability and quality. If not, every candidate is trained in
        full, except duplicates and, where they are not allowed, batch-dependent ones.
      quality_steps: number of training steps before the quality test.
      quality_threshold: accuracy that the quality test requires, as a multiple of chance.
      hurdle_steps: number of training steps before an early quality test on the cheapest anchor. 0 leaves it
        out, as the paper does.
      hurdle_threshold: accuracy that the early test requires, as a multiple of chance.
      stability_steps: largest number of steps of the stability test.
      stability_norm: gradient norm above which a candidate is unstable.
      stability_step_size: step size of the stability test, relative to the norm of the weights.
      stability_batch_size: number of images in the stability test.
      stability_anchor: name of the anchor of the stability test; "" for the cheapest.
      allow_batch_dependent: whether statistics of the batch are allowed, as they are not in the S series.
      allow_flat: whether an output that does not vary over space is allowed.
      duplicates: whether the evaluation of a function examined before is reused.
    """

    enabled: bool
    quality_steps: int
    quality_threshold: float
    hurdle_steps: int
    hurdle_threshold: float
    stability_steps: int
    stability_norm: float
    stability_step_size: float
    stability_batch_size: int
    stability_anchor: str
    allow_batch_dependent: bool
    allow_flat: bool
    duplicates: bool


_GROUPS = 4  # the probes have 8 channels: groups of 2, so that no two index sets coincide


def _make_probes() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Inputs `[3, 4, 3, 8]` of three scales, with a mean for each channel and instance, and v0, v1 `[8]`."""
    rng = np.random.default_rng(20200406)
    shape = (3, 4, 3, 8)
    inputs = [
        scale * (rng.normal(size=shape) + rng.normal(size=(3, 1, 1, 8))) for scale in (1.0, 1.0, 0.1, 10.0)
    ]
    return inputs, rng.normal(size=8), rng.normal(size=8)


_INPUTS, _V0, _V1 = _make_probes()


@functools.lru_cache(maxsize=len(_INPUTS))
def _output(graph: Graph, place: int) -> np.ndarray:
    """The output for the probe of this number at random v0 and v1, kept for the next test of the graph."""
    return evaluate_reference(graph, _INPUTS[place], _V0, _V1, _GROUPS)


def inert(graph: Graph) -> Evidence | None:
    """Rejects a graph whose output does not depend on x, or is not finite on ordinary input at the start.

    Dependence is tested at random v0 and v1, since training moves them: `x * v0` is 0 only at the start.
    """
    if not graph.uses_input:
        return {"reason": "x does not reach the output"}
    first, second = (_output(graph, place) for place in range(2))
    finite = np.isfinite(first) & np.isfinite(second)
    if finite.all() and np.abs(first - second).max() <= 1e-12 * np.abs(first).max():
        return {"reason": "the output does not depend on x"}
    if not np.isfinite(evaluate_reference(graph, _INPUTS[0], groups=_GROUPS)).all():
        return {"reason": "the output is not finite"}
    return None


def flat(graph: Graph) -> Evidence | None:
    """Rejects a graph whose output does not vary over space: it uses statistics of x and no pixel of it.

    The test is ours, not the paper's. It reads the probes at random v0 and v1, since training moves them. A
    pixel may differ from the mean of its channel and instance by 1e-6 of the largest output.
    """
    for place in range(2):
        y = _output(graph, place)
        if not np.isfinite(y).all():
            return None
        deviation = np.abs(y - y.mean(axis=(1, 2), keepdims=True)).max()
        if deviation > _FLAT * np.abs(y).max():
            return None
    return {"reason": "the output does not vary over space"}


_FLAT = 1e-6


def fingerprint(graph: Graph) -> str:
    """Identifier of the function that a graph computes, in training and at inference, to seven digits.

    Graphs with the same fingerprint have the same output on the probes: inputs of three scales, with random
    v0 and v1. At inference the batch moments are averages over two inputs, since an average of variances
    differs from the variance of averaged first and second moments.
    """
    digest = hashlib.sha256()
    first, second = (reference_batch_moments(graph, x, _V0, _V1, _GROUPS) for x in _INPUTS[:2])
    memory = {index: (first[index] + second[index]) / 2 for index in first}
    for place, x in enumerate(_INPUTS):
        digest.update(_quantized(_output(graph, place)).tobytes())
        y = evaluate_reference(graph, x, _V0, _V1, _GROUPS, batch_moments=memory)
        digest.update(_quantized(y).tobytes())
    return digest.hexdigest()[:32]


def _quantized(y: np.ndarray) -> np.ndarray:
    # Relative to the largest value, since the remainder of a cancellation is noise.
    finite = np.isfinite(y)
    largest = np.abs(y[finite]).max(initial=0.0)
    scale = 10.0 ** math.floor(math.log10(largest)) if largest > 1e-300 else 1.0
    rounded = np.round(np.where(finite, y, 0) / scale, 6) + 0.0  # + 0.0 turns -0 into 0
    kinds = np.where(finite, 0, np.where(np.isnan(y), 1, np.where(y > 0, 2, 3)))
    return np.concatenate([rounded.ravel(), kinds.ravel(), [math.log10(scale)]])


def batch_dependent(graph: Graph) -> Evidence | None:
    """Rejects a graph with a live aggregation over the batch, for the S series."""
    if not graph.batch_dependent:
        return None
    return {"reason": "an aggregation over the batch reaches the output"}


def unstable(anchor: str, norm: float, steps: int, max_norm: float) -> Evidence | None:
    """Rejects a candidate whose gradient norm exceeded `max_norm`, or was not finite."""
    if norm <= max_norm:
        return None
    return {"anchor": anchor, "norm": norm, "max_norm": max_norm, "step": steps}


def low_quality(anchor: str, accuracy: float, threshold: float, step: int) -> Evidence | None:
    """Rejects a candidate whose validation accuracy after a few steps is below the threshold."""
    if accuracy >= threshold:
        return None
    return {"anchor": anchor, "accuracy": accuracy, "threshold": threshold, "step": step}


def diverged(anchor: str, loss: float, step: int) -> Evidence | None:
    """Rejects a candidate whose training loss was not finite."""
    if math.isfinite(loss):
        return None
    return {"anchor": anchor, "loss": "not finite", "step": step}
