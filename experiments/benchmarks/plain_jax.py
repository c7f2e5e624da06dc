"""What a user of JAX would write to screen candidates: programs made for one graph, and nothing is skipped.

For each candidate and anchor a fresh `jax.jit` of the initialisation and of the training, with the graph's
functions compiled in; on one anchor also of the stability test. All steps are taken on all anchors, whatever
the losses. Weights, batches, crops and thresholds are those of the Evaluator: verdicts can be compared one by
one. What is generous: a training is one program, a `fori_loop`, and not one dispatch a step; the stability
test does end at a norm that is not a number; and reading the data is not counted.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from evonorms_jax import data
from evonorms_jax.evolution import rejection
from evonorms_jax.evolution.proxy import ProxyData, ProxyTask, make_proxy_task, proxy_data
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
    """All that it takes to screen a candidate.

    Attributes:
      tasks: of the anchors, the cheapest first.
      stability_anchor: name of the anchor of the stability test.
      stability_batch: its images `[B, H, W, C]`, cropped and normalised, and their labels `[B]`.
      tests: `config.rejection`.
      threshold: the accuracy asked for.
    """

    tasks: Sequence[AnchorTask]
    stability_anchor: str
    stability_batch: tuple[jax.Array, jax.Array]
    tests: ConfigDict
    threshold: float


class Plain(NamedTuple):
    """The verdict on a candidate, its figures, and the seconds that each stage took, builds included.

    Attributes:
      outcome: as of an `Evaluation`.
      evidence: what decided it.
      norm: the largest gradient norm.
      accuracies: by anchor.
      stability_seconds: of the stability test, with the initialisation of its anchor.
      quality_seconds: by anchor, with the initialisation of the others.
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
        """Seconds if nothing had been done after the first failed test."""
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
      config: of the search.
      anchors: from the cheapest to the dearest.
    """
    images, proxy = load_images(config), proxy_settings(config)
    on_device = jax.device_put(proxy_data(images, proxy.eval_batch_size), jax.devices()[0])
    key = jax.random.key(config.seed, impl="rbg")
    places = {name: place for place, name in enumerate(sorted(anchor.name for anchor in anchors))}
    tasks = []
    for anchor in anchors:
        task = make_proxy_task(
            anchor, images.num_classes, config.layer.to_dict(), proxy, images.train.images.shape[-1]
        )
        keys = jax.random.split(jax.random.fold_in(key, places[anchor.name]))
        tasks.append(AnchorTask(anchor.name, task, on_device, *keys))
    tests, count = config.rejection, config.rejection.stability_batch_size
    top, left = ((side - proxy.crop) // 2 for side in images.train.images.shape[1:3])
    crops = images.train.images[:count, top : top + proxy.crop, left : left + proxy.crop]
    batch = data.normalize(crops, images.mean, images.std), images.train.labels[:count]
    threshold = tests.quality_threshold / images.num_classes
    return Screening(tasks, tests.stability_anchor or tasks[0].name, batch, tests, threshold)


def examine(graph: Graph, screening: Screening) -> Plain:
    """Screens a candidate with programs of its own."""
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
    """The task with a training that takes all its steps, whatever the loss."""

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
        anchor.task,
        steps=tests.stability_steps,
        max_norm=np.inf,
        step_size=tests.stability_step_size,
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
    """The tests in the order of the Evaluator."""
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
