"""Where candidates run: one program on all devices of this host, each with its own share of a round.

The only place with `jax.pmap`: the population axis is the mapped axis, and within a device `jax.lax.map`
goes through the candidates of its share. A share has a fixed number of slots, whatever the number of devices:
so 1, 2 or 8 devices run the same program, and a candidate's measures do not depend on how many there are.

D devices, N slots.
"""

import concurrent.futures
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evonorms_jax.search_space.target import building_for


class Output(NamedTuple):
    """What a program gave for one candidate.

    Attributes:
      measures: a NamedTuple of NumPy scalars and small arrays.
      fetch: copies what the program keeps of the candidate, which may be large, to the host.
      seconds: of device time; the time of a share is divided by the work that its candidates took.
    """

    measures: Any
    fetch: Callable[[], Any]
    seconds: float


class Devices:
    """The devices of this host, and how well their time is used.

    Args:
      slots: N, the most candidates that a share holds.
      devices: all local ones by default.
    """

    def __init__(self, slots: int, devices: Sequence[jax.Device] | None = None):
        self.devices = list(devices or jax.local_devices())
        self.slots = slots
        self._waiters = concurrent.futures.ThreadPoolExecutor(len(self.devices))
        self._busy = self._held = 0.0

    @property
    def used(self) -> bool:
        """Whether anything has run."""
        return self._held > 0

    @property
    def idle_share(self) -> float:
        """How much of the devices' time was spent waiting for the last one of a call, in [0, 1].

        Building a program for one candidate counts as work of the device that waits for it.
        """
        return 1 - self._busy / self._held if self._held else 0.0

    def replicate(self, tree: Any) -> Any:
        """The tree on every device, with a leading axis D."""
        if not jax.tree.leaves(tree):
            return tree  # where JAX counts several processes, pmap fails on an empty result
        copy = jax.pmap(lambda _, tree: tree, in_axes=(0, None), devices=self.devices)
        return copy(np.arange(len(self.devices)), tree)

    def fetch(self, tree: Any) -> Any:
        """Copies to the host what `replicate` put on the devices, without the leading axis."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[0], part(tree, self.devices[0]))

    def wait(self, array: jax.Array, started: float) -> list[float]:
        """Seconds from `started` until each device had its part `[1, ...]` of the array ready."""

        def until_ready(mine):
            mine.block_until_ready()
            return time.monotonic() - started

        return list(self._waiters.map(until_ready, [part(array, device) for device in self.devices]))

    def count(self, seconds: Sequence[float]) -> None:
        """Adds the busy times of the devices in one call to the account of `idle_share`."""
        self._busy += sum(seconds)
        self._held += max(seconds) * len(seconds)


class Program:
    """A function of one candidate as one program on all devices; built on first use.

    Args:
      devices: where it runs.
      function: `(shared, item, kept) -> (measures, kept)`; pure.
      shared: what all candidates share, with a leading axis D, from `Devices.replicate`.
      kept: what the function takes and gives as `kept` is a pytree like this one, without a leading axis.
    """

    def __init__(self, devices: Devices, function: Callable[..., Any], shared: Any, kept: Any = ()):
        self._devices, self._shared = devices, shared
        self._function = jax.jit(function)  # so that it is traced once
        self._kept = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), kept)
        self._compiled: Callable[..., Any] | None = None

    def run(
        self,
        items: Sequence[Any],
        costs: Sequence[float],
        work: Callable[[Any], float],
        kept: Sequence[Any] | None = None,
    ) -> list[Output]:
        """Runs all items, in calls of at most N a device, packed so that shares cost about the same.

        Args:
          items: pytrees of the same structure.
          costs: what each is expected to cost.
          work: what one did cost, from its measures, in any unit.
          kept: what is kept of each from an earlier call; zeros by default.
        """
        results: list[Output | None] = [None] * len(items)
        shares = pack(costs, len(self._devices.devices))
        while any(shares):
            now = [share[: self._devices.slots] for share in shares]
            shares = [share[self._devices.slots :] for share in shares]
            self._call(now, items, kept, work, results)
        return results

    def _call(self, shares, items, kept, work, results) -> None:
        active = self._stack(shares, [np.bool_(True)] * len(items))
        held = self._blank if kept is None else self._stack(shares, kept)
        arguments = (self._shared, active, self._stack(shares, items), held)
        if self._compiled is None:
            self._compiled = self._lower(*arguments).compile()
        started = time.monotonic()
        measures, kept = self._compiled(*arguments)
        seconds = self._devices.wait(jax.tree.leaves(measures)[0], started)
        self._devices.count([s if share else 0.0 for s, share in zip(seconds, shares, strict=True)])
        measures = jax.tree.map(np.asarray, measures)
        for place, share in enumerate(shares):
            mine = [jax.tree.map(lambda a, at=(place, slot): a[at], measures) for slot in range(len(share))]
            spent = [work(figure) for figure in mine]
            for slot, index in enumerate(share):
                fetch = functools.partial(_fetch, kept, self._devices.devices[place], slot)
                results[index] = Output(mine[slot], fetch, seconds[place] * spent[slot] / sum(spent))

    def lower(self, item: Any) -> jax.stages.Lowered:
        """The program for items like this one, to compile ahead of time; `shared` may be shapes."""
        slots = len(self._devices.devices), self._devices.slots

        def in_every_slot(leaf):
            return jax.ShapeDtypeStruct((*slots, *np.shape(leaf)), leaf.dtype)

        active, items, kept = jax.tree.map(in_every_slot, (np.bool_(True), item, self._kept))
        return self._lower(self._shared, active, items, kept)

    def _lower(self, *arguments):
        with building_for(self._devices.devices[0].platform):
            return jax.pmap(self._share, devices=self._devices.devices).lower(*arguments)

    def _share(self, shared, active, items, kept):
        """What one device does: the candidates in the active slots, one after the other."""

        def one(slot):
            active, item, kept = slot
            outputs = jax.eval_shape(self._function, shared, item, kept)
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), outputs)
            return jax.lax.cond(active, lambda: self._function(shared, item, kept), lambda: nothing)

        return jax.lax.map(one, (active, items, kept))

    def _stack(self, shares, trees):
        """The trees in their places, `[D, N, ...]`, zeros in the free slots."""

        def stack(*leaves):
            first = np.asarray(leaves[0])
            stacked = np.zeros((len(shares), self._devices.slots, *first.shape), first.dtype)
            for place, share in enumerate(shares):
                for slot, index in enumerate(share):
                    stacked[place, slot] = leaves[index]
            return stacked

        return jax.tree.map(stack, *trees)

    @functools.cached_property
    def _blank(self):
        slots = self._devices.slots
        zeros = jax.tree.map(lambda leaf: np.zeros((slots, *leaf.shape), leaf.dtype), self._kept)
        return self._devices.replicate(zeros)


def pack(costs: Sequence[float], bins: int) -> list[list[int]]:
    """Indices in bins of about the same total cost: the dearest first, each into the emptiest bin."""
    packed: list[list[int]] = [[] for _ in range(bins)]
    totals = [0.0] * bins
    for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
        emptiest = totals.index(min(totals))
        packed[emptiest].append(index)
        totals[emptiest] += costs[index]
    return packed


def release_programs() -> None:
    """Drops all programs built so far.

    JAX keeps those of `pmap` for good. The ones of a search take some 9,000 memory maps, and Linux allows a
    process 65,530: several searches in one process would end in the compiler's "Cannot allocate memory".
    """
    jax.clear_caches()


def part(tree: Any, device: jax.Device) -> Any:
    """What a device holds of a tree `[D, ...]`, `[1, ...]`.

    Not for several threads at a time: JAX lists the shards of an array when first asked.
    """

    def of_device(leaf):
        return next(shard.data for shard in leaf.addressable_shards if shard.device == device)

    return jax.tree.map(of_device, tree)


def _fetch(kept, device, slot):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0, slot], part(kept, device))
