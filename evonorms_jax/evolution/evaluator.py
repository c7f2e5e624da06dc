"""From graphs to their evaluations: the tests in order of cost, then the proxy task in full.

The candidates of a round go through the tests together, stage by stage, so that every stage finds work for
all devices. Rejected candidates drop out. A graph has the same evaluation on any device and beside any other
candidates, since the seeds of weights, batches and crops depend on the name of the anchor and the replica
alone.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from evonorms_jax.data import ImageData, normalize
from evonorms_jax.errors import UserError
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
from evonorms_jax.evolution.proxy import (
    ProxyData,
    ProxySettings,
    ProxyState,
    ProxyTask,
    anchor_keys,
    make_proxy_task,
    proxy_data,
    restart,
)
from evonorms_jax.evolution.rejection import RejectionSettings
from evonorms_jax.evolution.stability import make_stability_test
from evonorms_jax.layers import norm_act
from evonorms_jax.models.networks import Network, operations
from evonorms_jax.runs.hosts import Hosts
from evonorms_jax.search_space import CATALOG, Graph
from evonorms_jax.search_space.encoding import encode

_EXECUTORS = ("universal", "compiled", "auto")


def check_executor(name: str) -> None:
    """Raises `ValueError` if no executor has this name."""
    if name not in _EXECUTORS:
        raise UserError(f"executor must be one of {', '.join(_EXECUTORS)}, got {name!r}")


class Evaluator:
    """Examines graphs on a set of anchors.

    Args:
      anchors: networks to train on, in any order. The one with the fewest operations a step is used first.
      data: training and validation images.
      proxy: settings of the proxy task.
      tests: settings of the tests.
      layer_fields: fields of the layer, such as `group_size`.
      executor: how the survivors of the quality test are trained to the end. "universal" trains all in one
        program an anchor. "compiled" builds a program for each: seconds to a minute to build, and faster
        steps. "auto" chooses by measured times.
      slots: largest number of candidates in one call of a device, which holds the states of all of them.
      hosts: connection to the hosts that share the work, one host by default.
      devices: devices to run on, all local ones by default.
      seed: base seed of weights, batches and crops.

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
        check_executor(executor)
        self._proxy, self._tests, self._executor = proxy, tests, executor
        self._hosts = hosts or Hosts()
        self.devices = Devices(slots, devices)
        self.threshold = tests.quality_threshold / data.num_classes
        image_shape = (proxy.batch_size, proxy.crop, proxy.crop, data.train.images.shape[-1])
        costs = {anchor.name: _operations(anchor, data.num_classes, image_shape) for anchor in anchors}
        self.anchors = sorted(anchors, key=lambda anchor: costs[anchor.name])
        names = [anchor.name for anchor in self.anchors]
        self._stability_anchor = tests.stability_anchor or names[0]
        if self._stability_anchor not in names:
            raise UserError(
                f"rejection.stability_anchor must be one of {', '.join(names)}, "
                f"got {tests.stability_anchor!r}"
            )
        self._data = proxy_data(data, proxy.eval_batch_size)
        replicated = functools.cache(lambda: self.devices.replicate(self._data))
        self._programs = {}
        for anchor in self.anchors:
            task = make_proxy_task(anchor, data.num_classes, layer_fields, proxy, image_shape[-1])
            keys = anchor_keys(seed, anchor.name)
            self._programs[anchor.name] = _AnchorPrograms(anchor.name, task, keys, replicated, self.devices)

    def examine(self, graphs: Sequence[Graph], history: History) -> list[Evaluation]:
        """The evaluations of the graphs of a round, in order, as if each had been examined by itself.

        A function that is in the history or earlier in the round is not trained again. Its evaluation is
        reused.
        """
        tests = self._tests
        # Keys are positions in the round.
        evaluations: dict[int, Evaluation] = {}
        marks: dict[int, str] = {}  # fingerprints
        first: dict[str, int] = {}  # position of the first graph with a fingerprint
        twins: dict[int, int] = {}  # position of the earlier graph with the same function
        for place, graph in enumerate(graphs):
            if rejected := self._reject_untrained(graph):
                evaluations[place] = rejected
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

    def _reject_untrained(self, graph: Graph) -> Evaluation | None:
        """The rejection of a graph by the tests that look at its output on probes alone."""
        if not self._tests.enabled:
            return None
        if evidence := rejection.inert(graph):
            return Evaluation("inert", evidence)
        if not self._tests.allow_flat and (evidence := rejection.flat(graph)):
            return Evaluation("flat", evidence)
        return None

    def evaluate(self, graphs: Sequence[Graph]) -> list[Evaluation]:
        """The evaluations by the tests that train, without a look at the history, the same on every host."""
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
        """Trains the candidates up to the step `stop`, and returns them."""
        # The quality test rejects most candidates. Only the training of a survivor is worth a build.
        name = self._executor if stop == self._proxy.steps else "universal"
        executor = self._programs[anchor.name].executors[name]
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
        """The largest gradient norm and the number of steps of each graph in the stability test."""
        return [(float(r.measures.norm), int(r.measures.steps)) for r in self._climb(graphs)]

    def learning_curves(self, graphs: Sequence[Graph], steps: Sequence[int]) -> list[dict[str, list[float]]]:
        """Validation accuracy of each graph by anchor, after the numbers of steps given in ascending order.

        The accuracy is 0 once the loss is not finite.
        """
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
        anchor = self._programs[self._stability_anchor]
        batch = stability_batch(self._data, self._proxy.crop, self._tests.stability_batch_size)
        shared = self.devices.replicate((anchor.template, *batch))
        return stability_program(anchor.task, self._tests, shared, self.devices)


def stability_program(task: ProxyTask, tests: RejectionSettings, shared: Any, devices: Devices) -> Program:
    """The stability test of encoded graphs on all devices.

    Args:
      task: proxy task of the stability anchor.
      tests: length, bound and step size of the ascent.
      shared: start state, images and labels, from `Devices.replicate`.
      devices: devices to run on.
    """
    test = make_stability_test(
        task, steps=tests.stability_steps, max_norm=tests.stability_norm, step_size=tests.stability_step_size
    )

    def climb(shared, encoded, kept):
        template, images, labels = shared
        return test(encoded, restart(template, encoded), images, labels), kept

    return Program(devices, climb, shared)


def stability_batch(data: ProxyData, crop: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The center crops of the first `count` training images, normalized, and their labels."""
    images = data.images[:count]
    top, left = ((side - crop) // 2 for side in images.shape[1:3])
    crops = images[:, top : top + crop, left : left + crop]
    return np.asarray(normalize(crops, data.mean, data.std)), data.labels[:count]


def _operations(anchor: Network, num_classes: int, image_shape: tuple[int, ...]) -> float:
    """Operations of a forward pass. BN-ReLU stands for all layers: its share is about the same everywhere."""
    model = anchor.build(norm_act("bn_relu"), num_classes)
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    apply = functools.partial(model.apply, train=False)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
    return operations(apply, variables, image)


class _AnchorPrograms:
    """The start weights and the executors of one anchor, each made on first use.

    Args:
      name: name of the anchor.
      task: proxy task of the anchor.
      keys: keys of the weights and of the batches and crops.
      data: function that returns the data set on all devices, which the anchors share.
      devices: devices to run on.
    """

    def __init__(
        self,
        name: str,
        task: ProxyTask,
        keys: tuple[jax.Array, jax.Array],
        data: Callable[[], Any],
        devices: Devices,
    ):
        self.task = task
        self._name, self._keys, self._data, self._devices = name, keys, data, devices

    @functools.cached_property
    def template(self) -> ProxyState:
        """The state before the first step. Its weights fit every candidate; `restart` sets the statistics."""
        return jax.jit(self.task.init)(encode(CATALOG["evonorm_b0"]), self._keys[0])

    @functools.cached_property
    def executors(self) -> dict[str, Any]:
        """Executors by name."""
        key, template = self._devices.replicate((self._keys[1], self.template))
        shared = Shared(self._data(), key, template)
        universal = Universal(self.task, shared, self._devices)
        compiled = Compiled(self.task, shared, self._devices)
        return {"universal": universal, "compiled": compiled, "auto": Auto(universal, compiled, self._name)}


class _Candidate:
    """A graph on its way through the tests: the verdict so far, and its cost."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.verdict: tuple[str, dict[str, Any]] | None = None
        self.trained: dict[str, TrainedCandidate] = {}
        self.step_seconds: dict[str, float] = {}  # seconds a step by anchor, in the last training there
        self.steps, self.seconds = 0, 0.0

    def reject(self, outcome: str, evidence: dict[str, Any] | None) -> None:
        """Records the verdict of a test, whose evidence is None for a pass. The first rejection stays."""
        if evidence is not None and self.verdict is None:
            self.verdict = (outcome, evidence)

    def step(self, anchor: str) -> int:
        """Number of training steps done on an anchor."""
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
