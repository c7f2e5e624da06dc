"""The programs of a search on every device of a slice, for each of its anchors."""

import functools
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from evonorms_jax.data import DataSettings, ImageData
from evonorms_jax.data.batches import ROUNDS as SHUFFLE_ROUNDS
from evonorms_jax.evolution.anchor_programs import stability_program
from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.evaluator import check_executor
from evonorms_jax.evolution.executors import Job, Shared, Universal, lower_for_one
from evonorms_jax.evolution.proxy import make_proxy_task, proxy_data
from evonorms_jax.evolution.rejection import RejectionSettings
from evonorms_jax.evolution.session import proxy_settings, slots
from evonorms_jax.lowering.programs import TpuProgram
from evonorms_jax.lowering.stand_ins import images_to_compile_with
from evonorms_jax.lowering.topology import Topology
from evonorms_jax.models import get_anchor
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.search_space import CATALOG
from evonorms_jax.search_space.encoding import encode, instruction_set
from evonorms_jax.search_space.target import building_for, compiler_options
from evonorms_jax.training.classification import shapes_on

#: The graph to compile with. Its 6 live nodes are more than most candidates have.
CANDIDATE = CATALOG["evonorm_b0"]
_OPTIONS = compiler_options("tpu")
# Origins of loops: the slots of a device, the steps of a training and of the stability test, the batches of a
# validation, the shuffle of the training images, the crops, and the tapes of the universal layer.
_SLOTS, _VALIDATION = r"shard_map/while$", r"jit\(train\)/cond/branch_1_fun/while$"
_TRAINING, _ASCENT = r"jit\(train\)/while$", r"jit\(climb\)/while$"
_CROPS = r"random_crop_flip\)/.*gather$"
_SHUFFLE = {r"batch_indices\)/while$": SHUFFLE_ROUNDS}
_TAPES = {
    r"_values\)/while$": len(CANDIDATE.canonical.nodes),
    r"_cotangents\)/while$": int(encode(CANDIDATE).num_edges),
}


class _ShapesOnDevices(Devices):
    """Devices of a topology, which hold shapes in the place of arrays."""

    def replicate(self, tree: Any) -> Any:
        return _with_axis(tree, len(self.devices))

    def fetch(self, tree: Any) -> Any:
        """Zeros that use no memory, since a caller may index an array on the host."""
        return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape[1:]), tree)


def search_programs(config: ConfigDict, topology: Topology) -> list[TpuProgram]:
    """Initialization, stability test, universal training, and a compiled candidate where it may be built.

    Args:
      config: config with the keys of `experiments/configs/search_defaults.py`.
      topology: slice. A search on several hosts runs the same programs on each.

    Raises:
      ValueError: if a setting is wrong.
      DataNotFoundError: if the data set is neither well-known nor there.
    """
    check_ranges(config, "search")
    check_executor(config.executor)
    images = images_to_compile_with(DataSettings(**config.data))
    of_anchors = [_Anchor(config, name, images, topology) for name in config.anchors]
    programs = []
    for anchor in of_anchors:
        programs += [anchor.initialization(), anchor.stability(), anchor.universal()]
        programs += [anchor.compiled()] if config.executor != "universal" else []
    return programs


class _Anchor:
    """The programs of one anchor."""

    def __init__(self, config: ConfigDict, name: str, images: ImageData, topology: Topology):
        self._name, self._topology, self._proxy = name, topology, proxy_settings(config)
        self._tests = RejectionSettings(**config.rejection)
        self._channels = images.train.images.shape[-1]
        self._task = make_proxy_task(
            get_anchor(name),
            images.num_classes,
            config.layer.to_dict(),
            self._proxy,
            self._channels,
            instruction_set(config.search_space.ops),
        )
        self._encoded = self._task.encode(CANDIDATE)
        self._devices = _ShapesOnDevices(slots(config), topology.devices)
        data = jax.tree.map(_shape, proxy_data(images, self._proxy.eval_batch_size))
        key = jax.eval_shape(lambda: jax.random.key(0, impl="rbg"))
        self._key, self._start = key, jax.eval_shape(self._task.init, self._encoded, key)
        self._shared = Shared(data, *_with_axis((key, self._start), self._proxy.replicas))

    def initialization(self) -> TpuProgram:
        """Draws the weights that all candidates start from."""

        def lower():
            arguments = shapes_on((self._encoded, self._key), self._topology.alone)
            with building_for("tpu"):
                return jax.jit(self._task.init).lower(*arguments)

        return TpuProgram(f"{self._name}: initialization", lower, "the number of anchors")

    def stability(self) -> TpuProgram:
        """The gradient ascent of every candidate. A search runs it on one anchor only."""
        size, count = self._proxy.crop, self._tests.stability_batch_size
        images = jax.ShapeDtypeStruct((count, size, size, self._channels), np.float32)
        batch = images, jax.ShapeDtypeStruct((count,), np.int32)
        shared = self._devices.replicate((self._start, *batch))
        program = stability_program(self._task, self._tests, shared, self._devices)
        return TpuProgram(
            f"{self._name}: stability test",
            functools.partial(program.lower, self._encoded),
            "rejection.stability_batch_size",
            step=_ASCENT,
            # An ascent takes two gradients a step.
            trips=_TAPES | {_SLOTS: self._devices.slots, _ASCENT: 2 * self._tests.stability_steps},
            options=_OPTIONS,
        )

    def universal(self) -> TpuProgram:
        """Training and validation of all candidates of a round, one after the other."""
        executor = Universal(self._task, self._devices.replicate(self._shared), self._devices)
        return TpuProgram(
            f"{self._name}: universal training",
            functools.partial(executor.lower, Job(CANDIDATE, self._proxy.steps)),
            "evolution.round_size or proxy.batch_size",
            step=_TRAINING,
            images=self._proxy.batch_size,
            trips=_TAPES | self._loops() | {_SLOTS: self._devices.slots},
            candidates=self._devices.slots,
            options=_OPTIONS,
        )

    def compiled(self) -> TpuProgram:
        """Training and validation of one candidate in a program of its own."""
        state = shapes_on(self._start, self._topology.alone)
        shared = shapes_on(_with_axis(self._shared, 1), self._topology.alone)
        number = jax.ShapeDtypeStruct((), np.int32, sharding=self._topology.alone)
        return TpuProgram(
            f"{self._name}: one compiled candidate",
            functools.partial(lower_for_one, self._task, CANDIDATE, "tpu", state, shared, number, number),
            "proxy.batch_size",
            step=_TRAINING,
            images=self._proxy.batch_size,
            trips=self._loops(),
        )

    def _loops(self) -> dict[str, float]:
        batches = self._shared.data.validation.labels.shape[0]
        # XLA:TPU cuts one crop after the other.
        return _SHUFFLE | {_CROPS: self._proxy.batch_size, _TRAINING: self._proxy.steps, _VALIDATION: batches}


def _with_axis(tree: Any, count: int) -> Any:
    """Shapes with a leading axis."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), tree)


def _shape(leaf: np.ndarray) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)
