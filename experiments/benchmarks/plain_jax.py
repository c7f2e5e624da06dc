"""Screening in plain JAX, as a user would write it: programs compiled for one graph, no test skipped.

For each candidate and anchor it makes a fresh `jax.jit` of the initialization and of the training, with the
functions of the graph compiled in, and on one anchor also of the stability test. Every training takes all its
steps on all anchors, regardless of the losses. Weights, batches, crops and thresholds are those of the
Evaluator, so that verdicts can be compared one by one. Three things favor plain JAX: a training is one
program with a `fori_loop` instead of one dispatch a step, the stability test ends at a norm that is not a
number, and the time to read the data is not counted.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from evonorms_jax.evolution import rejection
from evonorms_jax.evolution.evaluator import stability_batch
from evonorms_jax.evolution.proxy import ProxyData, ProxyTask, anchor_keys, make_proxy_task, proxy_data
from evonorms_jax.evolution.session import load_images, proxy_settings
from evonorms_jax.evolution.stability import make_stability_test
from evonorms_jax.models.networks import Network
from evonorms_jax.search_space import Graph


class AnchorTask(NamedTuple):
    """The proxy task of an anchor, with the data and the keys of its weights and of its batches."""

    name: str
    task: ProxyTask
    data: ProxyData
    init_key: jax.Array
    train_key: jax.Array


class Screening(NamedTuple):
    """The tasks and tests of a search.

    Attributes:
      tasks: tasks of the anchors, the cheapest first.
      stability_anchor: name of the anchor of the stability test.
      stability_batch: images of that test `[B, H, W, C]`, cropped and normalized, and their labels `[B]`.
      tests: the group `config.rejection`.
      threshold: accuracy required by the quality test.
    """

    tasks: Sequence[AnchorTask]
    stability_anchor: str
    stability_batch: tuple[jax.Array, jax.Array]
    tests: ConfigDict
    threshold: float


class Plain(NamedTuple):
    """The verdict on a candidate, its measurements, and the seconds of each stage with its builds.

    Attributes:
      outcome: outcome, as in an `Evaluation`.
      evidence: numbers that decided the outcome.
      norm: largest gradient norm.
      accuracies: accuracies by anchor.
      stability_seconds: seconds of the stability test and of the initialization of its anchor.
      quality_seconds: seconds by anchor. On all but the anchor of the stability test they include the
        initialization.
    """

    outcome: str
    evidence: dict[str, Any]
    norm: float
    accuracies: dict[str, float]
    stability_seconds: float
    quality_seconds: dict[str, float]

    @property
    def seconds(self) -> float:
        return self.stability_seconds + sum(self.quality_seconds.values())

    @property
    def seconds_to_verdict(self) -> float:
        """Seconds until the first failed test had ended."""
        if self.outcome == "batch_dependent":
            return 0.0
        seconds = self.stability_seconds
        if self.outcome == "unstable":
            return seconds
        for anchor, more in self.quality_seconds.items():
            seconds += more
            if self.evidence.get("anchor") == anchor:
                break
        return seconds


def make_screening(config: ConfigDict, anchors: Sequence[Network]) -> Screening:
    """The screening of a search's config, with the seeds of its Evaluator.

    Args:
      config: config of the search.
      anchors: networks of the evaluator in its order, the cheapest first.
    """
    images, proxy = load_images(config), proxy_settings(config)
    on_device = jax.device_put(proxy_data(images, proxy.eval_batch_size), jax.devices()[0])
    tasks = []
    for anchor in anchors:
        task = make_proxy_task(
            anchor, images.num_classes, config.layer.to_dict(), proxy, images.train.images.shape[-1]
        )
        tasks.append(AnchorTask(anchor.name, task, on_device, *anchor_keys(config.seed, anchor.name)))
    tests = config.rejection
    batch = stability_batch(on_device, proxy.crop, tests.stability_batch_size)
    threshold = tests.quality_threshold / images.num_classes
    return Screening(tasks, tests.stability_anchor or tasks[0].name, batch, tests, threshold)


def examine(graph: Graph, screening: Screening) -> Plain:
    """Screens a candidate with newly compiled programs."""
    by_name = {anchor.name: anchor for anchor in screening.tasks}
    started = time.monotonic()
    states = {screening.stability_anchor: _init(graph, by_name[screening.stability_anchor])}
    norm = _climb(graph, screening, by_name[screening.stability_anchor], *states.values())
    stability_seconds = time.monotonic() - started
    accuracies, seconds = {}, {}
    for name, anchor in by_name.items():
        started = time.monotonic()
        state = states[name] if name in states else _init(graph, anchor)
        accuracies[name] = _train(graph, anchor, state, screening.tests.quality_steps)
        seconds[name] = time.monotonic() - started
    outcome, evidence = _verdict(graph, screening, norm, accuracies)
    return Plain(outcome, evidence, norm, accuracies, stability_seconds, seconds)


def without_early_end(task: ProxyTask) -> ProxyTask:
    """The task with a training that takes all its steps, even if the loss is not finite."""

    def train(candidate, state, data, key, stop):
        def step(number, state):
            return task.train(candidate, _forget_loss(state), data, key, number + 1)

        return _forget_loss(jax.lax.fori_loop(state.step, stop, step, state))

    return task._replace(train=train)


def _forget_loss(state):
    return state._replace(loss=jnp.zeros_like(state.loss))


def _init(graph, anchor):
    return jax.jit(lambda key: anchor.task.init(graph, key))(anchor.init_key)


def _climb(graph, screening, anchor, state):
    tests = screening.tests
    test = make_stability_test(
        anchor.task, steps=tests.stability_steps, max_norm=np.inf, step_size=tests.stability_step_size
    )
    climb = jax.jit(lambda state, images, labels: test(graph, state, images, labels))
    return float(climb(state, *screening.stability_batch).norm)


def _train(graph, anchor, state, steps):
    task = without_early_end(anchor.task)

    def train(state, data, key):
        state = task.train(graph, state, data, key, np.int32(steps))
        return task.accuracy(graph, state, data)

    return float(jax.jit(train)(state, anchor.data, anchor.train_key))


def _verdict(graph, screening, norm, accuracies):
    """Outcome and evidence of the tests, in the order of the Evaluator."""
    tests = screening.tests
    if not tests.allow_batch_dependent and (evidence := rejection.batch_dependent(graph)):
        return "batch_dependent", evidence
    steps = tests.stability_steps
    if evidence := rejection.unstable(screening.stability_anchor, norm, steps, tests.stability_norm):
        return "unstable", evidence
    for name, accuracy in accuracies.items():
        if evidence := rejection.low_quality(name, accuracy, screening.threshold, tests.quality_steps):
            return "low_quality", evidence
    return "accepted", {"mean_score": float(np.mean(list(accuracies.values())))}
