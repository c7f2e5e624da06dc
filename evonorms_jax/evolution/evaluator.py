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
from evonorms_jax.evolution.anchor_programs import AnchorPrograms, stability_program
from evonorms_jax.evolution.candidate import Candidate, running
from evonorms_jax.evolution.devices import Devices, Program, pack
from evonorms_jax.evolution.executors import step_cost
from evonorms_jax.evolution.history import Evaluation, History
from evonorms_jax.evolution.proxy import ProxyData, ProxySettings, anchor_keys, make_proxy_task, proxy_data
from evonorms_jax.evolution.rejection import RejectionSettings
from evonorms_jax.layers import norm_act
from evonorms_jax.models.networks import Network, operations
from evonorms_jax.runs.hosts import Hosts
from evonorms_jax.search_space import Graph
from evonorms_jax.search_space.encoding import PAPER, InstructionSet

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
      fresh_replicas: number of seeds for `retrain`, which no evaluation uses.
      instructions: ops that the universal program runs, and so those that a graph may have.

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
        fresh_replicas: int = 0,
        instructions: InstructionSet = PAPER,
    ):
        check_executor(executor)
        self._proxy, self._tests, self._executor = proxy, tests, executor
        self._fresh = range(proxy.replicas, proxy.replicas + fresh_replicas)
        self._hosts = hosts or Hosts()
        self.devices = Devices(slots, devices)
        self.chance = 1 / data.num_classes
        self.threshold = tests.quality_threshold * self.chance
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
            task = make_proxy_task(
                anchor, data.num_classes, layer_fields, proxy, image_shape[-1], instructions
            )
            replicas = range(proxy.replicas + fresh_replicas)
            keys = [anchor_keys(seed, anchor.name, replica) for replica in replicas]
            self._programs[anchor.name] = AnchorPrograms(anchor.name, task, keys, replicated, self.devices)

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
        lines = self._over_hosts(lambda mine: [e.to_json() for e in self._evaluate(mine)], graphs)
        return [Evaluation.from_json(line) for line in lines]

    def retrain(self, graphs: Sequence[Graph]) -> list[dict[str, list[float]]]:
        """Accuracies by anchor of full trainings with each of the fresh seeds, the same on every host.

        A training whose loss is not finite has the accuracy 0.
        """

        def mine(graphs):
            curves = self.replica_curves(graphs, [self._proxy.steps], self._fresh)
            return [{name: scores[:, -1].tolist() for name, scores in curve.items()} for curve in curves]

        return self._over_hosts(mine, graphs)

    def _over_hosts(self, function: Callable[..., list[Any]], graphs: Sequence[Graph]) -> list[Any]:
        """The JSON objects that a function makes of the graphs, of which each host takes a share."""
        shares = pack([step_cost(graph) for graph in graphs], self._hosts.count)
        gathered = self._hosts.gather(function([graphs[i] for i in shares[self._hosts.index]]))
        results = {
            i: line
            for share, lines in zip(shares, gathered, strict=True)
            for i, line in zip(share, lines, strict=True)
        }
        return [results[i] for i in range(len(graphs))]

    def _evaluate(self, graphs: Sequence[Graph]) -> list[Evaluation]:
        tests = self._tests
        candidates = [Candidate(graph) for graph in graphs]
        if not tests.allow_batch_dependent:
            for candidate in candidates:
                candidate.reject("batch_dependent", rejection.batch_dependent(candidate.graph))
        if tests.enabled:
            self._test_stability(running(candidates))
            for anchor, steps, threshold in self._hurdles:
                for candidate in self._train(anchor, running(candidates), steps):
                    trained = candidate.trained[anchor.name, 0]
                    evidence = rejection.low_quality(anchor.name, trained.accuracy, threshold, trained.step)
                    candidate.reject("low_quality", evidence)
        replicas = range(self._proxy.replicas)
        for anchor in self.anchors:
            for candidate in self._train(anchor, running(candidates), self._proxy.steps, replicas):
                for replica in replicas:
                    trained = candidate.trained[anchor.name, replica]
                    evidence = rejection.diverged(anchor.name, trained.loss, trained.step)
                    candidate.reject("diverged", evidence)
        return [candidate.evaluation() for candidate in candidates]

    @functools.cached_property
    def _hurdles(self) -> list[tuple[Network, int, float]]:
        """The quality tests: anchor, number of steps, and the accuracy required after them."""
        tests = self._tests
        early = [(self.anchors[0], tests.hurdle_steps, tests.hurdle_threshold * self.chance)]
        each = [(anchor, tests.quality_steps, self.threshold) for anchor in self.anchors]
        return (early if tests.hurdle_steps else []) + each

    def _test_stability(self, candidates: Sequence[Candidate]) -> None:
        results = self._climb([candidate.graph for candidate in candidates])
        for candidate, result in zip(candidates, results, strict=True):
            norm, steps = float(result.measures.norm), int(result.measures.steps)
            candidate.steps += steps
            candidate.seconds += result.seconds
            evidence = rejection.unstable(self._stability_anchor, norm, steps, self._tests.stability_norm)
            candidate.reject("unstable", evidence)

    def _train(
        self,
        anchor: Network,
        candidates: Sequence[Candidate],
        stop: int,
        replicas: Sequence[int] = (0,),
    ) -> Sequence[Candidate]:
        """Trains the candidates up to the step `stop` with each of the replicas, and returns them."""
        # The quality test rejects most candidates. Only the training of a survivor is worth a build.
        name = self._executor if stop == self._proxy.steps else "universal"
        executor = self._programs[anchor.name].executors[name]
        pairs = [(candidate, replica) for candidate in candidates for replica in replicas]
        behind = [pair for pair in pairs if pair[0].step(anchor.name, pair[1]) < stop]
        jobs = [candidate.job(anchor.name, replica, stop) for candidate, replica in behind]
        for (candidate, replica), job, trained in zip(behind, jobs, executor.train(jobs), strict=True):
            steps = trained.step - job.start
            candidate.steps += steps
            candidate.seconds += trained.seconds
            candidate.trained[anchor.name, replica] = trained
            candidate.step_seconds[anchor.name] = trained.seconds / max(1, steps)
        return candidates

    def stability(self, graphs: Sequence[Graph]) -> list[tuple[float, int]]:
        """The largest gradient norm and the number of steps of each graph in the stability test."""
        return [(float(r.measures.norm), int(r.measures.steps)) for r in self._climb(graphs)]

    def learning_curves(self, graphs: Sequence[Graph], steps: Sequence[int]) -> list[dict[str, list[float]]]:
        """Validation accuracy of each graph by anchor, after the numbers of steps given in ascending order.

        It is the mean over the replicas. The accuracy is 0 once the loss is not finite.
        """
        curves = self.replica_curves(graphs, steps, range(self._proxy.replicas))
        return [{name: scores.mean(axis=0).tolist() for name, scores in curve.items()} for curve in curves]

    def replica_curves(
        self, graphs: Sequence[Graph], steps: Sequence[int], replicas: Sequence[int]
    ) -> list[dict[str, np.ndarray]]:
        """`learning_curves` of each replica, float64 `[replicas, steps]` by anchor."""
        candidates = [Candidate(graph) for graph in graphs]
        curves = [{a.name: np.zeros((len(replicas), len(steps))) for a in self.anchors} for _ in graphs]
        for anchor in self.anchors:
            for column, stop in enumerate(steps):
                self._train(anchor, candidates, stop, replicas)
                for curve, candidate in zip(curves, candidates, strict=True):
                    trained = [candidate.trained[anchor.name, replica] for replica in replicas]
                    curve[anchor.name][:, column] = [each.accuracy for each in trained]
        return curves

    def _climb(self, graphs: Sequence[Graph]):
        task = self._programs[self._stability_anchor].task
        return self._stability_program.run(
            [task.encode(graph) for graph in graphs],
            costs=[step_cost(graph) for graph in graphs],
            work=lambda measures: 1.0 + float(measures.steps),
        )

    @functools.cached_property
    def _stability_program(self) -> Program:
        anchor = self._programs[self._stability_anchor]
        batch = stability_batch(self._data, self._proxy.crop, self._tests.stability_batch_size)
        shared = self.devices.replicate((anchor.start(0), *batch))
        return stability_program(anchor.task, self._tests, shared, self.devices)


def stability_batch(data: ProxyData, crop: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The center crops of the first `count` training images, normalized, and their labels."""
    images = data.images[:count]
    top, left = ((side - crop) // 2 for side in images.shape[1:3])
    crops = images[:, top : top + crop, left : left + crop]
    return np.asarray(normalize(crops, data.mean, data.std)), data.labels[:count]


def _operations(anchor: Network, num_classes: int, image_shape: tuple[int, ...]) -> float:
    """Operations of a forward pass. BN-ReLU stands for all layers: its share is about the same everywhere."""
    # XLA counts the body of a loop once, so all blocks are separate here.
    separate = {} if "scan_blocks" not in anchor.fields else {"scan_blocks": False}
    model = anchor.build(norm_act("bn_relu"), num_classes, **separate)
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    apply = functools.partial(model.apply, train=False)
    variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
    return operations(apply, variables, image)


def _duplicate(original: Evaluation, index: int) -> Evaluation:
    evidence = {"original": original.outcome}
    return Evaluation("duplicate", evidence, original.scores, duplicate_of=index, replicas=original.replicas)
