"""Measures what a search costs here: steps and builds on its anchors, and what becomes of candidates."""

import statistics
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from evonorms_jax.data import EvalBatches, stripes
from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.executors import Job, Shared, Universal
from evonorms_jax.evolution.proxy import ProxyData, ProxySettings, ProxyTask, make_proxy_task
from evonorms_jax.evolution.records import read_search
from evonorms_jax.evolution.session import SEARCH_BASELINES, proxy_settings
from evonorms_jax.models import get_anchor
from evonorms_jax.models.networks import operations
from evonorms_jax.search_space import CATALOG, Graph
from evonorms_jax.search_space.encoding import encode
from experiments.benchmarks.candidates import Pass, mutants, random_graphs, rounds
from experiments.benchmarks.search_cost import AnchorCost, Mix, mix_of
from experiments.configs import search_mnist5k

# As in CIFAR-10; the time of a step does not depend on what the images show.
_SIDE, _CHANNELS, _CLASSES, _VALIDATION_IMAGES = 32, 3, 10, 5_000
_EVAL_BATCH = 8  # all that is validated while steps are timed
# What stands for a candidate: six live nodes. Random graphs that are not inert have three on average, mutated
# EvoNorms five.
_LAYER = "evonorm_b0"


def measure_anchors(config: ConfigDict, steps: int) -> list[AnchorCost]:
    """Times training steps and builds on the anchors of a search, all devices busy; the cheapest first.

    Args:
      config: of the search; its images are made up.
      steps: how many are timed.
    """
    proxy = proxy_settings(config, learning_rate=0.0, eval_batch_size=_EVAL_BATCH)
    costs = []
    for name in config.anchors:
        started = time.monotonic()
        layer_fields = config.layer.to_dict()
        task = make_proxy_task(get_anchor(name), _CLASSES, layer_fields, proxy, _CHANNELS)
        costs.append(_measure(name, task, proxy, steps))
        logging.info("%s measured in %.0f s", name, time.monotonic() - started)
    return sorted(costs, key=lambda cost: cost.operations)


def _measure(name: str, task: ProxyTask, proxy: ProxySettings, steps: int) -> AnchorCost:
    graph, keys = CATALOG[_LAYER], jax.random.split(jax.random.key(0, impl="rbg"))
    template = jax.jit(task.init)(encode(graph), keys[0])
    data = _images(proxy.batch_size)
    shared = Shared(data, keys[1], template)
    _, universal = _time(task, shared, steps)
    build, compiled = _time(_made_for(graph, task), shared, steps)
    params, stats = jax.tree.map(lambda leaf: leaf[0], (template.params, template.stats))
    crops = jnp.zeros((proxy.batch_size, proxy.crop, proxy.crop, _CHANNELS))

    def gradient(params, stats, images, labels):
        return jax.grad(lambda params: task.loss(graph, params, stats, images, labels)[0])(params)

    step = proxy.replicas * operations(gradient, params, stats, crops, jnp.zeros(len(crops), jnp.int32))
    of_batch = operations(lambda state, data: task.accuracy(graph, state, data), template, data)
    validation = of_batch * _VALIDATION_IMAGES / _EVAL_BATCH
    return AnchorCost(
        name,
        operations=step,
        validation=validation / step,
        universal=universal,
        compiled=compiled,
        build=build,
    )


def _time(task: ProxyTask, shared: Shared, steps: int) -> tuple[float, float]:
    """Seconds to build the program of a task, and of a step in it with all devices busy."""
    devices = Devices(1)
    executor = Universal(task, devices.replicate(shared), devices)

    def train(stop):
        return executor.train([Job(CATALOG[_LAYER], stop)] * len(devices.devices))

    started = time.monotonic()
    first = train(1)
    build = time.monotonic() - started - max(one.seconds for one in first)
    return build, statistics.mean(one.seconds / one.step for one in train(steps))


def _made_for(graph: Graph, task: ProxyTask) -> ProxyTask:
    """The task with programs that are made for one graph, whatever the candidate."""
    return task._replace(
        train=lambda _, *arguments: task.train(graph, *arguments),
        accuracy=lambda _, *arguments: task.accuracy(graph, *arguments),
    )


def _images(count: int) -> ProxyData:
    rng, count = np.random.default_rng(0), max(count, _EVAL_BATCH)
    images, labels = stripes(rng, count, size=_SIDE, channels=_CHANNELS, num_classes=_CLASSES)
    first = images[None, :_EVAL_BATCH], labels[None, :_EVAL_BATCH]
    validation = EvalBatches(*first, np.ones((1, _EVAL_BATCH), np.float32))
    return ProxyData(images, labels, validation, np.full(_CHANNELS, 128.0), np.full(_CHANNELS, 64.0))


def mix_of_search(workdir: str) -> Mix:
    """What became of the candidates of a search.

    Raises:
      WorkdirError: if this is no work directory of a search.
      ValueError: if nothing was examined yet.
    """
    search = read_search(workdir)
    return _mix((record.evaluation for record in search.history), ConfigDict(search.config))


def mix_of_sample(count: int, config: ConfigDict | None = None) -> Mix:
    """What becomes of candidates that are examined here, half random graphs and half mutated known layers.

    Args:
      count: how many.
      config: of a search; the default search on embedded digits if None.
    """
    config = config or search_mnist5k.get_config()
    half = count // 2
    graphs: Sequence = random_graphs(count - half, config.seed)
    graphs = [*graphs, *mutants(list(SEARCH_BASELINES.values()), half, config.seed)]
    examined = Pass(config)
    for batch in rounds(graphs, config.evolution.round_size):
        examined.examine(batch)
        logging.info("%d of %d candidates examined", len(examined.history), count)
    return _mix((record.evaluation for record in examined.history), config)


def _mix(evaluations, config) -> Mix:
    return mix_of(
        evaluations,
        stability_steps=config.rejection.stability_steps,
        quality_steps=config.rejection.quality_steps,
        replicas=config.proxy.replicas,
    )
