"""How a candidate is trained on one anchor: by one program for all candidates, or by a program of its own.

Both run the same proxy task on the same states, so a training can change from one to the other at any step. A
new executor is a class with `train`.
"""

import functools
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from evonorms_jax.evolution.devices import Devices, Program, part
from evonorms_jax.evolution.proxy import ProxyState, ProxyTask, restart
from evonorms_jax.search_space import Graph
from evonorms_jax.search_space.target import building_for


class Job(NamedTuple):
    """A training to do.

    Attributes:
      graph: candidate.
      stop: step to train to.
      state: state to resume from, or None for the start.
      step_seconds: measured time of a step in the universal program, 0 if it was not measured.
      replica: number of the seed of weights, batches and crops.
    """

    graph: Graph
    stop: int
    state: ProxyState | None = None
    step_seconds: float = 0.0
    replica: int = 0

    @property
    def start(self) -> int:
        """Number of steps done before."""
        return 0 if self.state is None else int(self.state.step)

    @property
    def steps(self) -> int:
        """Number of steps to do."""
        return self.stop - self.start


class TrainedCandidate(NamedTuple):
    """The result of a training.

    Attributes:
      accuracy: validation accuracy in [0, 1]; 0 if the loss was not finite.
      loss: loss of the last step.
      step: number of the last step.
      fetch: function that copies the state to the host.
      seconds: device time, builds included.
      build_seconds: time to build a program for this training alone.
    """

    accuracy: float
    loss: float
    step: int
    fetch: Callable[[], ProxyState]
    seconds: float
    build_seconds: float = 0.0


class Shared(NamedTuple):
    """Arrays that the trainings on one anchor share: data, key of batches and crops, state of the start.

    The last two have a leading axis with a row for each replica. On the devices all have a further one before
    it, D from `Devices.replicate`. So several anchors can share the data on the devices.
    """

    data: Any
    key: jax.Array
    template: ProxyState


def share(data: Any, starts: Sequence[tuple[jax.Array, ProxyState]]) -> Shared:
    """The arrays of the replicas, from the data and the key and start of each."""
    key, template = jax.tree.map(lambda *rows: jnp.stack(rows), *starts)
    return Shared(data, key, template)


class _Measures(NamedTuple):
    accuracy: jax.Array
    loss: jax.Array
    step: jax.Array


def step_cost(graph: Graph) -> float:
    """Cost of a step of the universal program in live nodes. The network itself costs about five."""
    return 5.0 + len(graph.canonical.nodes)


class Universal:
    """Trains all jobs in one program on all devices. The graph is an input of the program."""

    def __init__(self, task: ProxyTask, shared: Shared, devices: Devices):
        def train(shared, item, state):
            encoded, stop, resumed, replica = item
            fresh = restart(jax.tree.map(lambda leaf: leaf[replica], shared.template), encoded)
            state = jax.tree.map(lambda old, new: jnp.where(resumed, old, new), state, fresh)
            return _train(task, encoded, state, shared, stop, replica)

        self._encode = task.encode
        self._template = jax.tree.map(lambda leaf: leaf[0], devices.fetch(shared.template))
        self._program = Program(devices, train, shared, kept=self._template)

    def lower(self, job: Job) -> jax.stages.Lowered:
        """The program, to compile without running it. It is the same for all jobs."""
        return self._program.lower(self._item(job))

    def train(self, jobs: Sequence[Job]) -> list[TrainedCandidate]:
        """Trains the jobs, packed so that the devices finish at about the same time."""
        items = [self._item(job) for job in jobs]
        resumed = any(job.state is not None for job in jobs)
        results = self._program.run(
            items,
            costs=[step_cost(job.graph) * job.steps for job in jobs],
            work=lambda measures: 1.0 + float(measures.step),
            kept=[job.state or self._template for job in jobs] if resumed else None,
        )
        return [_trained(result.measures, result.fetch, result.seconds) for result in results]

    def _item(self, job: Job):
        resumed = job.state is not None
        return self._encode(job.graph), np.int32(job.stop), np.bool_(resumed), np.int32(job.replica)


class Compiled:
    """Builds a program for each job. A build takes seconds to a minute, and its steps are faster."""

    def __init__(self, task: ProxyTask, shared: Shared, devices: Devices):
        self._task, self._template, self._devices = task, devices.fetch(shared.template), devices
        self._shares = {device: part(shared, device) for device in devices.devices}
        self._pool = ThreadPoolExecutor(len(self._shares))

    def train(self, jobs: Sequence[Job]) -> list[TrainedCandidate]:
        """Trains the jobs, one at a time on each device."""
        free: queue.SimpleQueue[jax.Device] = queue.SimpleQueue()
        for device in self._shares:
            free.put(device)
        busy = dict.fromkeys(self._shares, 0.0)

        def run(job):
            device = free.get()
            try:
                trained = self._train_on(device, job)
                busy[device] += trained.seconds
                return trained
            finally:
                free.put(device)

        results = list(self._pool.map(run, jobs))
        self._devices.count(list(busy.values()))
        return results

    def _train_on(self, device: jax.Device, job: Job) -> TrainedCandidate:
        state = job.state
        if state is None:
            start = jax.tree.map(lambda leaf: leaf[job.replica], self._template)
            state = restart(start, self._task.encode(job.graph))
        state, *numbers = jax.device_put((state, np.int32(job.stop), np.int32(job.replica)), device)
        arguments = state, self._shares[device], *numbers
        started = time.monotonic()
        program = lower_for_one(self._task, job.graph, device.platform, *arguments).compile()
        built = time.monotonic()
        measures, state = jax.block_until_ready(program(*arguments))
        ended = time.monotonic()
        fetch = functools.partial(jax.tree.map, np.asarray, state)
        trained = _trained(jax.tree.map(np.asarray, measures), fetch, ended - started)
        return trained._replace(build_seconds=built - started)


def lower_for_one(
    task: ProxyTask, graph: Graph, platform: str, state: ProxyState, shared: Shared, stop: Any, replica: Any
) -> jax.stages.Lowered:
    """The program that trains one graph on one device. The arguments after the platform may hold shapes.

    Args:
      task: proxy task of an anchor.
      graph: candidate that the program is made for.
      platform: platform of the device, such as "tpu".
      state: state in which the training starts.
      shared: data, key and template with a leading axis of size 1, from `devices.part`.
      stop: step after which the training ends, an int32 scalar.
      replica: number of the seed, an int32 scalar.
    """

    def train(state, shared, stop, replica):
        shared = jax.tree.map(lambda leaf: leaf[0], shared)
        return _train(task, graph, state, shared, stop, replica)

    with building_for(platform):
        return jax.jit(train).lower(state, shared, stop, replica)


class Auto:
    """Chooses the executor of each job by measured times. A build must save more time than it costs.

    The first jobs that resume after a quality test are compiled, which measures the time of a build and the
    ratio of a compiled to a universal step. The choice depends on the speed of the machine, so a repeated
    search may choose differently, and the two executors agree up to rounding only.
    """

    def __init__(self, universal: Universal, compiled: Compiled, name: str):
        self._universal, self._compiled, self._name = universal, compiled, name
        self._build, self._ratio = 0.0, None  # seconds, time of a compiled step over a universal one

    def train(self, jobs: Sequence[Job]) -> list[TrainedCandidate]:
        """Trains the jobs, and logs the times that each choice rests on."""
        chosen = [self._choose(job) for job in jobs]
        results: dict[int, TrainedCandidate] = {}
        for executor in (self._compiled, self._universal):
            mine = [i for i, choice in enumerate(chosen) if choice is executor]
            if mine:
                results |= zip(mine, executor.train([jobs[i] for i in mine]), strict=True)
            if mine and executor is self._compiled:
                self._measure([(jobs[i], results[i]) for i in mine])
        return [results[i] for i in range(len(jobs))]

    def _measure(self, pairs: Sequence[tuple[Job, TrainedCandidate]]) -> None:
        interpreted = sum((trained.step - job.start) * job.step_seconds for job, trained in pairs)
        if not interpreted:
            return  # every loss was not finite already, so no step was taken
        compiled = sum(trained.seconds - trained.build_seconds for _, trained in pairs)
        self._build = sum(trained.build_seconds for _, trained in pairs) / len(pairs)
        self._ratio = compiled / interpreted

    def _choose(self, job: Job) -> Universal | Compiled:
        interpreted = job.steps * job.step_seconds
        if not job.step_seconds:
            return self._universal
        if self._ratio is None:
            logging.info(
                "%s, %d steps: compiled, to measure it; universal %.1f s", self._name, job.steps, interpreted
            )
            return self._compiled
        compiled = self._build + interpreted * self._ratio
        choice = self._compiled if compiled < interpreted else self._universal
        logging.info(
            "%s, %d steps: %s; universal %.1f s, compiled %.1f s (a build of %.1f s, steps of %.2f the time)",
            *(self._name, job.steps, type(choice).__name__.lower()),
            *(interpreted, compiled, self._build, self._ratio),
        )
        return choice


def _train(task: ProxyTask, candidate, state: ProxyState, shared: Shared, stop, replica):
    state = task.train(candidate, state, shared.data, shared.key[replica], stop)
    finite = jnp.isfinite(state.loss)
    accuracy = jax.lax.cond(
        finite, lambda: task.accuracy(candidate, state, shared.data), lambda: jnp.float32(0)
    )
    return _Measures(accuracy, state.loss, state.step), state


def _trained(measures: _Measures, fetch, seconds: float) -> TrainedCandidate:
    return TrainedCandidate(
        float(measures.accuracy), float(measures.loss), int(measures.step), fetch, seconds
    )
