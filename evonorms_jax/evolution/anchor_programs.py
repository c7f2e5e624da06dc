"""The programs of one anchor: its executors, and the stability test."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from evonorms_jax.evolution.devices import Devices, Program
from evonorms_jax.evolution.executors import Auto, Compiled, Shared, Universal, share
from evonorms_jax.evolution.proxy import ProxyState, ProxyTask, restart
from evonorms_jax.evolution.rejection import RejectionSettings
from evonorms_jax.evolution.stability import make_stability_test
from evonorms_jax.search_space import CATALOG


class AnchorPrograms:
    """The start weights and the executors of one anchor, each made on first use.

    Args:
      name: name of the anchor.
      task: proxy task of the anchor.
      keys: keys of the weights and of the batches and crops, for each replica.
      data: function that returns the data set on all devices, which the anchors share.
      devices: devices to run on.
    """

    def __init__(
        self,
        name: str,
        task: ProxyTask,
        keys: Sequence[tuple[jax.Array, jax.Array]],
        data: Callable[[], Any],
        devices: Devices,
    ):
        self.task = task
        self._name, self._keys, self._data, self._devices = name, keys, data, devices
        self._init = jax.jit(task.init)

    def start(self, replica: int) -> ProxyState:
        """The state before the first step. Its weights fit every candidate; `restart` sets the statistics."""
        return self._init(self.task.encode(CATALOG["evonorm_b0"]), self._keys[replica][0])

    @functools.cached_property
    def executors(self) -> dict[str, Any]:
        """Executors by name."""
        starts = [(keys[1], self.start(replica)) for replica, keys in enumerate(self._keys)]
        _, key, template = share((), starts)
        shared = Shared(self._data(), *self._devices.replicate((key, template)))
        universal = Universal(self.task, shared, self._devices)
        compiled = Compiled(self.task, shared, self._devices)
        return {"universal": universal, "compiled": compiled, "auto": Auto(universal, compiled, self._name)}


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
