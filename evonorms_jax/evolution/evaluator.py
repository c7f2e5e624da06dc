"""From graphs to their evaluations: the tests in order of cost, then the proxy task in full.

The candidates of a round go through the tests together, stage by stage, so that every stage finds work for
all devices; who fails a test leaves the round. The same graph has the same evaluation wherever and with
whatever others it is examined: seeds of weights, batches and crops depend on anchor and replica alone.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evonorms_jax.data import ImageData, normalize
from evonorms_jax.evolution import rejection
from evonorms_jax.evolution.devices import Devices, Program, pack
from evonorms_jax.evolution.executors import (
    Auto,
    Compiled,
    Job,
    Shared,
    TrainedCandidate,
    Universal,
    step_cost,
)
from evonorms_jax.evolution.history import Evaluation, History
from evonorms_jax.evolution.proxy import ProxySettings, ProxyTask, make_proxy_task, proxy_data, restart
from evonorms_jax.evolution.rejection import RejectionSettings
from evonorms_jax.evolution.stability import make_stability_test
from evonorms_jax.layers import norm_act
from evonorms_jax.models.networks import Network, operations
from evonorms_jax.runs.hosts import Hosts
from evonorms_jax.search_space import CATALOG, Graph
from evonorms_jax.search_space.encoding import encode

EXECUTORS = ("universal", "compiled", "auto")


class Evaluator:
    """Examines graphs on a set of anchors.

    Args:
      anchors: the networks; they are used from the cheapest to the dearest, by operations a step.
      data: training and validation images.
      proxy: how a candidate is trained.
      tests: which tests it must pass.
      layer_fields: fields of the layer, such as `group_size`.
      executor: how the survivors of the quality test are trained to the end: "universal" trains all in one
        program an anchor; "compiled" builds one for each, faster a step and seconds to a minute to build;
        "auto" chooses by measured times.
      slots: the most candidates that a device gets in one call; so many states are held on a device.
      hosts: those that share the work.
      devices: where to run; all local ones by default.
      seed: of weights, batches and crops.

    Raises:
      ValueError: if the executor is unknown, or the stability anchor is not among the anchors.
    """

    def __init__(
        self,
        anchors: Sequence[Network],
        data: ImageData,
        proxy: ProxySettings,
        tests: RejectionSettings,
        layer_fields: dict[str, Any],
        *,
        executor: str = "universal",
        slots: int = 16,
        hosts: Hosts | None = None,
        devices: Sequence[jax.Device] | None = None,
        seed: int = 0,
    ):
        if executor not in EXECUTORS:
            raise ValueError(f"executor must be one of {', '.join(EXECUTORS)}, got {executor!r}")
        self._proxy, self._tests, self._executor = proxy, tests, executor
        self._layer_fields, self._num_classes = layer_fields, data.num_classes
        self._channels = data.train.images.shape[-1]
        costs = {anchor.name: self._cost(anchor) for anchor in anchors}
        self.anchors = sorted(anchors, key=lambda anchor: costs[anchor.name])
        names = [anchor.name for anchor in self.anchors]
        self._stability_anchor = tests.stability_anchor or names[0]
        if self._stability_anchor not in names:
            raise ValueError(
                f"rejection.stability_anchor must be one of {', '.join(names)}, "
                f"got {tests.stability_anchor!r}"
            )
        # Programs that draw weights with rbg are built in a third of the time.
        key = jax.random.key(seed, impl="rbg")
        self._keys = {name: jax.random.fold_in(key, i) for i, name in enumerate(sorted(names))}
        self._data = proxy_data(data, proxy.eval_batch_size)
        self._hosts = hosts or Hosts()
        self.devices = Devices(slots, devices)
        self.threshold = tests.quality_threshold / data.num_classes

    def examine(self, graphs: Sequence[Graph], history: History) -> list[Evaluation]:
        """The evaluations of the graphs of a round, in order, as if each had been examined by itself.

        A function that the history or the round has already is not trained again: its evaluation is reused.
        """
        tests = self._tests
        evaluations: dict[int, Evaluation] = {}  # by place in the round, as all that follow
        marks: dict[int, str] = {}
        first: dict[str, int] = {}  # of a fingerprint
        twins: dict[int, int] = {}  # and the place of what they repeat
        for place, graph in enumerate(graphs):
            if tests.enabled and (evidence := rejection.inert(graph)):
                evaluations[place] = Evaluation("inert", evidence)
                continue
            mark = marks[place] = rejection.fingerprint(graph)
            if tests.duplicates and (original := history.original(mark)) is not None:
                evaluations[place] = _duplicate(original.evaluation, original.index)
            elif tests.duplicates and first.setdefault(mark, place) != place:
                twins[place] = first[mark]
        new = [place for place in marks if place not in evaluations and place not in twins]
        evaluations |= zip(new, self.evaluate([graphs[place] for place in new]), strict=True)
        for place, twin in twins.items():
            evaluations[place] = _duplicate(evaluations[twin], len(history) + twin)
        return [evaluations[i]._replace(fingerprint=marks.get(i, "")) for i in range(len(graphs))]

    def evaluate(self, graphs: Sequence[Graph]) -> list[Evaluation]:
        """The evaluations by training alone, whatever the history; every host gets all of them."""
        shares = pack([step_cost(graph) for graph in graphs], self._hosts.count)
        mine = shares[self._hosts.index]
        evaluated = self._evaluate([graphs[i] for i in mine])
        gathered = self._hosts.gather([evaluation.to_json() for evaluation in evaluated])
        results = {
            i: Evaluation.from_json(line)
            for share, lines in zip(shares, gathered, strict=True)
            for i, line in zip(share, lines, strict=True)
        }
        return [results[i] for i in range(len(graphs))]

    def _evaluate(self, graphs: Sequence[Graph]) -> list[Evaluation]:
        tests = self._tests
        candidates = [_Candidate(graph) for graph in graphs]
        if not tests.allow_batch_dependent:
            for candidate in candidates:
                candidate.reject("batch_dependent", rejection.batch_dependent(candidate.graph))
        if tests.enabled:
            self._test_stability(_running(candidates))
            for anchor in self.anchors:
                for candidate in self._train(anchor, _running(candidates), tests.quality_steps):
                    trained = candidate.trained[anchor.name]
                    evidence = rejection.low_quality(
                        anchor.name, trained.accuracy, self.threshold, trained.step
                    )
                    candidate.reject("low_quality", evidence)
        for anchor in self.anchors:
            for candidate in self._train(anchor, _running(candidates), self._proxy.steps):
                trained = candidate.trained[anchor.name]
                candidate.reject("diverged", rejection.diverged(anchor.name, trained.loss, trained.step))
        return [candidate.evaluation() for candidate in candidates]

    def _test_stability(self, candidates: Sequence["_Candidate"]) -> None:
        results = self._climb([candidate.graph for candidate in candidates])
        for candidate, result in zip(candidates, results, strict=True):
            norm, steps = float(result.measures.norm), int(result.measures.steps)
            candidate.steps += steps
            candidate.seconds += result.seconds
            evidence = rejection.unstable(self._stability_anchor, norm, steps, self._tests.stability_norm)
            candidate.reject("unstable", evidence)

    def _train(self, anchor: Network, candidates: Sequence["_Candidate"], stop: int):
        """Trains the candidates on, up to a step, and returns them."""
        # What the quality test trains is mostly rejected: only what goes on from there is worth a build.
        executor = self._executors[anchor.name][self._executor if stop == self._proxy.steps else "universal"]
        behind = [candidate for candidate in candidates if candidate.step(anchor.name) < stop]
        jobs = [candidate.job(anchor.name, stop) for candidate in behind]
        for candidate, job, trained in zip(behind, jobs, executor.train(jobs), strict=True):
            steps = trained.step - job.start
            candidate.steps += steps * self._proxy.replicas
            candidate.seconds += trained.seconds
            candidate.trained[anchor.name] = trained
            candidate.step_seconds[anchor.name] = trained.seconds / max(1, steps)
        return candidates

    def stability(self, graphs: Sequence[Graph]) -> list[tuple[float, int]]:
        """The largest gradient norm of each in the stability test, and its steps."""
        return [(float(r.measures.norm), int(r.measures.steps)) for r in self._climb(graphs)]

    def learning_curves(self, graphs: Sequence[Graph], steps: Sequence[int]) -> list[dict[str, list[float]]]:
        """Validation accuracy of each after some numbers of steps, ascending, by anchor; 0 from NaN on."""
        candidates = [_Candidate(graph) for graph in graphs]
        curves = [{anchor.name: [] for anchor in self.anchors} for _ in graphs]
        for anchor in self.anchors:
            for stop in steps:
                self._train(anchor, candidates, stop)
                for curve, candidate in zip(curves, candidates, strict=True):
                    curve[anchor.name].append(candidate.trained[anchor.name].accuracy)
        return curves

    def _climb(self, graphs: Sequence[Graph]):
        return self._stability_program.run(
            [encode(graph) for graph in graphs],
            costs=[step_cost(graph) for graph in graphs],
            work=lambda measures: 1.0 + float(measures.steps),
        )

    @functools.cached_property
    def _stability_program(self) -> Program:
        task, shared = self._tasks[self._stability_anchor]
        shared = self.devices.replicate((shared.template, *self._stability_batch()))
        return stability_program(task, self._tests, shared, self.devices)

    def _stability_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """The first training images, cut from the middle."""
        size, count = self._proxy.crop, self._tests.stability_batch_size
        images = self._data.images[:count]
        top, left = ((n - size) // 2 for n in images.shape[1:3])
        crops = images[:, top : top + size, left : left + size]
        return np.asarray(normalize(crops, self._data.mean, self._data.std)), self._data.labels[:count]

    @functools.cached_property
    def _tasks(self):
        """The proxy task of each anchor, and what its trainings share."""
        tasks = {}
        for anchor in self.anchors:
            task = make_proxy_task(anchor, self._num_classes, self._layer_fields, self._proxy, self._channels)
            init_key, train_key = jax.random.split(self._keys[anchor.name])
            # The weights at the start do not depend on the candidate.
            template = jax.jit(task.init)(encode(CATALOG["evonorm_b0"]), init_key)
            tasks[anchor.name] = (task, Shared(self._data, train_key, template))
        return tasks

    @functools.cached_property
    def _executors(self) -> dict[str, dict[str, Any]]:
        """Executors by anchor and name; nothing is built before its first use."""
        executors = {}
        data = self.devices.replicate(self._data)
        for anchor, (task, shared) in self._tasks.items():
            shared = Shared(data, *self.devices.replicate((shared.key, shared.template)))
            universal = Universal(task, shared, self.devices)
            compiled = Compiled(task, shared, self.devices)
            auto = Auto(universal, compiled, anchor)
            executors[anchor] = {"universal": universal, "compiled": compiled, "auto": auto}
        return executors

    def _cost(self, anchor: Network) -> float:
        """Operations of a forward pass, with a layer that costs about the same everywhere."""
        model = anchor.build(norm_act("bn_relu"), self._num_classes)
        size = self._proxy.crop
        image = jax.ShapeDtypeStruct((self._proxy.batch_size, size, size, self._channels), jnp.float32)
        apply = functools.partial(model.apply, train=False)
        variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
        return operations(apply, variables, image)


def stability_program(task: ProxyTask, tests: RejectionSettings, shared: Any, devices: Devices) -> Program:
    """The stability test of encoded graphs on all devices.

    Args:
      task: proxy task of the stability anchor.
      tests: length, bound and step size of the ascent.
      shared: the state to start from, images and labels, from `Devices.replicate`.
      devices: where it runs.
    """
    test = make_stability_test(
        task,
        steps=tests.stability_steps,
        max_norm=tests.stability_norm,
        step_size=tests.stability_step_size,
    )

    def climb(shared, encoded, kept):
        template, images, labels = shared
        return test(encoded, restart(template, encoded), images, labels), kept

    return Program(devices, climb, shared)


class _Candidate:
    """A graph on its way through the tests: the verdict so far, and what it cost."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.verdict: tuple[str, dict[str, Any]] | None = None
        self.trained: dict[str, TrainedCandidate] = {}
        self.step_seconds: dict[str, float] = {}  # on each anchor, in the last training there
        self.steps, self.seconds = 0, 0.0

    def reject(self, outcome: str, evidence: dict[str, Any] | None) -> None:
        """Takes the verdict of a test; None is a pass."""
        if evidence is not None and self.verdict is None:
            self.verdict = (outcome, evidence)

    def step(self, anchor: str) -> int:
        """Training steps done on an anchor."""
        return self.trained[anchor].step if anchor in self.trained else 0

    def job(self, anchor: str, stop: int) -> Job:
        trained = self.trained.get(anchor)
        if trained is None:
            return Job(self.graph, stop)
        return Job(self.graph, stop, trained.fetch(), self.step_seconds[anchor])

    def evaluation(self) -> Evaluation:
        if self.verdict is not None:
            return Evaluation(*self.verdict, steps=self.steps, seconds=self.seconds)
        scores = {name: trained.accuracy for name, trained in self.trained.items()}
        evidence = {"mean_score": float(np.mean(list(scores.values())))}
        return Evaluation("accepted", evidence, scores, self.steps, self.seconds)


def _running(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    return [candidate for candidate in candidates if candidate.verdict is None]


def _duplicate(original: Evaluation, index: int) -> Evaluation:
    evidence = {"original": original.outcome}
    return Evaluation("duplicate", evidence, original.scores, duplicate_of=index)
