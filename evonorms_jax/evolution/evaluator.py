"""From a graph to its evaluation: the tests in order of cost, then the proxy task in full.

The only place that knows where candidates run. Programs are built once an anchor, on first use, and take the
candidate as data (`search_space.universal`); where a candidate is to be trained for long, a program of its
own can pay off (`executor`).
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evonorms_jax.data import ImageData, normalize
from evonorms_jax.evolution import rejection
from evonorms_jax.evolution.history import Evaluation, History
from evonorms_jax.evolution.proxy import ProxySettings, ProxyState, ProxyTask, device_data, make_proxy_task
from evonorms_jax.evolution.stability import make_stability_test
from evonorms_jax.layers import LayerConstructor, norm_act
from evonorms_jax.layers.universal import UniversalNormAct
from evonorms_jax.models.anchors import Anchor
from evonorms_jax.search_space import Graph
from evonorms_jax.search_space.universal import encode


class RejectionSettings(NamedTuple):
    """The keys of `config.rejection`.

    Attributes:
      enabled: False trains every candidate in full.
      quality_steps: training steps before the accuracy is asked for.
      quality_threshold: the accuracy asked for, as a multiple of chance.
      stability_steps: steps of the stability test.
      stability_norm: gradient norm above which a candidate is unstable.
      stability_step_size: relative size of a step of the stability test.
      stability_batch_size: images of its batch.
      stability_anchor: its anchor; "" is the cheapest.
      allow_batch_dependent: False rejects what depends on the batch (S series).
      duplicates: whether a function examined before has its evaluation reused.
    """

    enabled: bool
    quality_steps: int
    quality_threshold: float
    stability_steps: int
    stability_norm: float
    stability_step_size: float
    stability_batch_size: int
    stability_anchor: str
    allow_batch_dependent: bool
    duplicates: bool


class _Programs(NamedTuple):
    """The jitted functions of one anchor."""

    init: Callable[..., ProxyState]
    train: Callable[..., ProxyState]
    accuracy: Callable[..., jax.Array]


class Evaluator:
    """Examines graphs on a set of anchors.

    The same graph has the same evaluation whenever it is examined: seeds of weights, batches and crops
    depend on the anchor and the replica alone, so that candidates are compared on equal terms.

    Args:
      anchors: the networks; they are used from the cheapest to the dearest, by operations a step.
      data: training and validation images.
      proxy: how a candidate is trained.
      tests: which tests it must pass.
      layer_fields: fields of the layer, such as `group_size`.
      executor: "universal" trains all in one program an anchor; "compiled" builds one for each survivor of
        the quality test, faster a step and seconds to a minute to build.
      seed: of weights, batches and crops.

    Raises:
      ValueError: if the executor is unknown, or the stability anchor is not among the anchors.
    """

    def __init__(
        self,
        anchors: Sequence[Anchor],
        data: ImageData,
        proxy: ProxySettings,
        tests: RejectionSettings,
        layer_fields: dict[str, Any],
        *,
        executor: str = "universal",
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
        # Known layers may be trained to compare with and again as the first proposals.
        self._evaluated: dict[Graph, Evaluation] = {}
        self._data = device_data(data, proxy.eval_batch_size)
        self.threshold = tests.quality_threshold / data.num_classes

    def examine(self, graph: Graph, history: History) -> Evaluation:
        """The evaluation of a graph; one examined before has its evaluation reused."""
        started = time.monotonic()
        if self._tests.enabled and (figure := rejection.inert(graph)):
            return Evaluation("inert", figure, seconds=time.monotonic() - started)
        mark = rejection.fingerprint(graph)
        original = history.original(mark) if self._tests.duplicates else None
        if original is not None:
            evaluation = Evaluation(
                "duplicate",
                {"original": original.evaluation.outcome},
                original.evaluation.scores,
                duplicate_of=original.index,
            )
        else:
            evaluation = self.evaluate(graph)
        return evaluation._replace(fingerprint=mark, seconds=time.monotonic() - started)

    def evaluate(self, graph: Graph) -> Evaluation:
        """The evaluation by training alone, whatever the history; the same genotype is trained once."""
        if graph not in self._evaluated:
            self._evaluated[graph] = self._evaluate(graph)
        return self._evaluated[graph]

    def _evaluate(self, graph: Graph) -> Evaluation:
        tests = self._tests
        if not tests.allow_batch_dependent and (figure := rejection.batch_dependent(graph)):
            return Evaluation("batch_dependent", figure)
        candidate = encode(graph)
        if not tests.enabled:
            return self._train_in_full(graph, {})
        norm, taken = self.stability(graph)
        if figure := rejection.unstable(self._stability_anchor, norm, taken, tests.stability_norm):
            return Evaluation("unstable", figure, steps=taken)
        steps = taken
        states: dict[str, ProxyState] = {}
        for anchor in self.anchors:
            state, accuracy = self._train(anchor.name, candidate, None, tests.quality_steps)
            steps += int(state.step) * self._proxy.replicas
            if figure := rejection.low_quality(anchor.name, accuracy, self.threshold, int(state.step)):
                return Evaluation("low_quality", figure, steps=steps)
            states[anchor.name] = state
        full = self._train_in_full(graph, states)
        return full._replace(steps=steps + full.steps)

    def learning_curves(self, graph: Graph, steps: Sequence[int]) -> dict[str, list[float]]:
        """Validation accuracy after each of some numbers of steps, ascending, by anchor; 0 from NaN on."""
        curves: dict[str, list[float]] = {}
        for anchor in self.anchors:
            state = None
            curves[anchor.name] = []
            for stop in steps:
                state, accuracy = self._train(anchor.name, encode(graph), state, stop)
                curves[anchor.name].append(accuracy)
        return curves

    def _train_in_full(self, graph: Graph, states: dict[str, ProxyState]) -> Evaluation:
        """Trains on every anchor to the last step, from the states of the quality test if there are any."""
        scores: dict[str, float] = {}
        steps = 0
        for anchor in self.anchors:
            state = states.get(anchor.name)
            start = 0 if state is None else int(state.step)
            if self._executor == "compiled":
                programs = self._build(anchor, lambda _: norm_act(graph, **self._layer_fields))
                state, accuracy = self._run(programs, anchor.name, None, None, self._proxy.steps)
                start = 0
            else:
                state, accuracy = self._train(anchor.name, encode(graph), state, self._proxy.steps)
            steps += (int(state.step) - start) * self._proxy.replicas
            if figure := rejection.diverged(anchor.name, state.loss, int(state.step)):
                return Evaluation("diverged", figure, steps=steps)
            scores[anchor.name] = accuracy
        figure = {"mean_score": float(np.mean(list(scores.values())))}
        return Evaluation("accepted", figure, scores, steps)

    def _train(self, name: str, candidate, state: ProxyState | None, stop: int) -> tuple[ProxyState, float]:
        return self._run(self._universal[name], name, candidate, state, stop)

    def _run(self, programs: _Programs, name: str, candidate, state, stop: int):
        """Trains from a state, or from the start, up to a step; accuracy 0 if the loss was not finite."""
        init_key, train_key = jax.random.split(self._keys[name])
        if state is None:
            state = programs.init(candidate, init_key)
        state = programs.train(candidate, state, self._data, train_key, stop)
        if not np.isfinite(np.asarray(state.loss)).all():
            return state, 0.0
        return state, float(programs.accuracy(candidate, state, self._data))

    def stability(self, graph: Graph) -> tuple[float, int]:
        """The largest gradient norm in the stability test, and its steps."""
        name, candidate = self._stability_anchor, encode(graph)
        init_key, _ = jax.random.split(self._keys[name])
        state = self._universal[name].init(candidate, init_key)
        result = self._stability_program(candidate, state, *self._stability_batch)
        return float(result.norm), int(result.steps)

    @functools.cached_property
    def _universal(self) -> dict[str, _Programs]:
        """The programs that take the candidate as data, by anchor."""
        return {anchor.name: self._build(anchor, self._universal_layer) for anchor in self.anchors}

    def _universal_layer(self, candidate) -> LayerConstructor:
        return LayerConstructor(functools.partial(UniversalNormAct, genome=candidate, **self._layer_fields))

    def _task(self, anchor: Anchor, layer: Callable[[Any], LayerConstructor]) -> ProxyTask:
        return make_proxy_task(anchor, self._num_classes, layer, self._proxy, self._channels)

    def _build(self, anchor: Anchor, layer: Callable[[Any], LayerConstructor]) -> _Programs:
        task = self._task(anchor, layer)
        return _Programs(jax.jit(task.init), jax.jit(task.train), jax.jit(task.accuracy))

    @functools.cached_property
    def _stability_program(self) -> Callable[..., Any]:
        anchor = next(a for a in self.anchors if a.name == self._stability_anchor)
        test = make_stability_test(
            self._task(anchor, self._universal_layer),
            steps=self._tests.stability_steps,
            max_norm=self._tests.stability_norm,
            step_size=self._tests.stability_step_size,
        )
        return jax.jit(test)

    @functools.cached_property
    def _stability_batch(self) -> tuple[jax.Array, jax.Array]:
        """The first training images, cut from the middle."""
        size, count = self._proxy.crop, self._tests.stability_batch_size
        images = self._data.images[:count]
        top, left = ((n - size) // 2 for n in images.shape[1:3])
        crops = images[:, top : top + size, left : left + size]
        return normalize(crops, self._data.mean, self._data.std), self._data.labels[:count]

    def _cost(self, anchor: Anchor) -> float:
        """Operations of a forward pass, with a layer that costs about the same everywhere."""
        model = anchor.build(norm_act("bn_relu"), self._num_classes)
        size = self._proxy.crop
        image = jax.ShapeDtypeStruct((self._proxy.batch_size, size, size, self._channels), jnp.float32)
        apply = functools.partial(model.apply, train=False)
        variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
        return jax.jit(apply).lower(variables, image).cost_analysis()["flops"]


EXECUTORS = ("universal", "compiled")
