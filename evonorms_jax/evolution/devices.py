"""Where candidates run: one program on all devices of this host, each with its own share of a round.

This is the only module with `jax.pmap`. The mapped axis is the population, and within a device `jax.lax.map`
runs the candidates of its share one after the other. A share has a fixed number of slots, so 1, 2 and 8
devices run the same program, and the measures of a candidate do not depend on the number of devices.

D devices, N slots in a share.
"""

import concurrent.futures
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evonorms_jax.search_space.target import building_for, compiler_options


class Output(NamedTuple):
    """The output of a program for one candidate.

    Attributes:
      measures: NamedTuple of NumPy scalars and small arrays.
      fetch: function that copies the candidate's state, which may be large, from the device to the host.
      seconds: device time. The time of a share is divided among its candidates by their work.
    """

    measures: Any
    fetch: Callable[[], Any]
    seconds: float


class Devices:
    """The devices of this host, and an account of their busy time.

    Args:
      slots: N, number of slots in a share.
      devices: devices to run on, all local ones by default.
    """

    def __init__(self, slots: int, devices: Sequence[jax.Device] | None = None):
        self.devices = list(devices or jax.local_devices())
        self.slots = slots
        self._waiters = concurrent.futures.ThreadPoolExecutor(len(self.devices))
        self._busy = self._held = 0.0

    @property
    def used(self) -> bool:
        """Whether a program has run."""
        return self._held > 0

    @property
    def idle_share(self) -> float:
        """Share in [0, 1] of the devices' time that they spent waiting for the last one of a call.

        The time to build a program for one candidate counts as busy time of its device.
        """
        return 1 - self._busy / self._held if self._held else 0.0

    def replicate(self, tree: Any) -> Any:
        """The tree on every device, with a leading axis D."""
        if not jax.tree.leaves(tree):
            return tree  # where JAX counts several processes, pmap fails on an empty result
        copy = jax.pmap(lambda _, tree: tree, in_axes=(0, None), devices=self.devices)
        return copy(np.arange(len(self.devices)), tree)

    def fetch(self, tree: Any) -> Any:
        """A copy on the host of a tree from `replicate`, without the leading axis."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[0], part(tree, self.devices[0]))

    def wait(self, array: jax.Array, started: float) -> list[float]:
        """Seconds from `started` until each device had its part `[1, ...]` of the array ready."""
        # One thread for each device: `block_until_ready` on one would hide that another is ready earlier.

        def until_ready(mine):
            mine.block_until_ready()
            return time.monotonic() - started

        return list(self._waiters.map(until_ready, [part(array, device) for device in self.devices]))

    def count(self, seconds: Sequence[float]) -> None:
        """Adds the busy seconds of each device in one call to the account of `idle_share`."""
        self._busy += sum(seconds)
        self._held += max(seconds) * len(seconds)


class Program:
    """A function of one candidate as one program on all devices, built on first use.

    Args:
      devices: devices to run on.
      function: pure function `(shared, item, kept) -> (measures, kept)`. `kept` is the candidate's state. It
        stays on the device until it is fetched.
      shared: arrays that all candidates share, with a leading axis D, from `Devices.replicate`.
      kept: pytree with the structure, shapes and types of the state, without a leading axis.
    """

    def __init__(self, devices: Devices, function: Callable[..., Any], shared: Any, kept: Any = ()):
        self._devices, self._shared = devices, shared
        # `_share` calls the function twice, for its shapes and for its value. Under `jit` it is traced once.
        self._function = jax.jit(function)
        self._kept = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), kept)
        self._compiled: Callable[..., Any] | None = None

    def run(
        self,
        items: Sequence[Any],
        costs: Sequence[float],
        work: Callable[[Any], float],
        kept: Sequence[Any] | None = None,
    ) -> list[Output]:
        """Runs all items, at most N a device in each call, packed so that shares cost about the same.

        Args:
          items: pytrees of the same structure.
          costs: expected cost of each item, in any unit.
          work: function from an item's measures to its true cost, in any unit.
          kept: state of each item from an earlier call, zeros by default.
        """
        results: list[Output | None] = [None] * len(items)
        shares = pack(costs, len(self._devices.devices))
        while any(shares):
            now = [share[: self._devices.slots] for share in shares]
            shares = [share[self._devices.slots :] for share in shares]
            self._call(now, items, kept, work, results)
        return results

    def _call(self, shares, items, kept, work, results) -> None:
        # False in the free slots, which `_stack` fills with zeros.
        active = self._stack(shares, [np.bool_(True)] * len(items))
        held = self._blank if kept is None else self._stack(shares, kept)
        arguments = (self._shared, active, self._stack(shares, items), held)
        if self._compiled is None:
            # Ahead of time, so that the build is not part of the measured time of the first call.
            options = compiler_options(self._devices.devices[0].platform)
            self._compiled = self._lower(*arguments).compile(compiler_options=options)
        started = time.monotonic()
        measures, kept = self._compiled(*arguments)
        seconds = self._devices.wait(jax.tree.leaves(measures)[0], started)
        self._devices.count([s if share else 0.0 for s, share in zip(seconds, shares, strict=True)])
        measures = jax.tree.map(np.asarray, measures)  # small, the states stay on the devices
        for place, share in enumerate(shares):
            mine = [jax.tree.map(lambda a, at=(place, slot): a[at], measures) for slot in range(len(share))]
            spent = [work(each) for each in mine]
            for slot, index in enumerate(share):
                fetch = functools.partial(_fetch, kept, self._devices.devices[place], slot)
                results[index] = Output(mine[slot], fetch, seconds[place] * spent[slot] / sum(spent))

    def lower(self, item: Any) -> jax.stages.Lowered:
        """The program for items like this one, to compile without running it. `shared` may hold shapes."""
        slots = len(self._devices.devices), self._devices.slots

        def in_every_slot(leaf):
            return jax.ShapeDtypeStruct((*slots, *np.shape(leaf)), leaf.dtype)

        active, items, kept = jax.tree.map(in_every_slot, (np.bool_(True), item, self._kept))
        return self._lower(self._shared, active, items, kept)

    def _lower(self, *arguments):
        with building_for(self._devices.devices[0].platform):
            return jax.pmap(self._share, devices=self._devices.devices).lower(*arguments)

    def _share(self, shared, active, items, kept):
        """The program of one device: the candidates in the active slots, one after the other."""

        def one(slot):
            active, item, kept = slot
            outputs = jax.eval_shape(self._function, shared, item, kept)
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), outputs)
            # `cond` in a `map` stays a branch: a free slot costs no time. Under `vmap` it would become a
            # `select`, which runs both sides, and every candidate would take the steps of the longest one.
            return jax.lax.cond(active, lambda: self._function(shared, item, kept), lambda: zeros)

        return jax.lax.map(one, (active, items, kept))

    def _stack(self, shares, trees):
        """The trees at their places in the shares, `[D, N, ...]`, with zeros in the free slots."""

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
    """Indices in bins of about the same total cost: each index, by falling cost, into the emptiest bin."""
    packed: list[list[int]] = [[] for _ in range(bins)]
    totals = [0.0] * bins
    for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
        emptiest = totals.index(min(totals))
        packed[emptiest].append(index)
        totals[emptiest] += costs[index]
    return packed


def release_programs() -> None:
    """Drops all programs built so far.

    JAX keeps the programs of `pmap` until its caches are cleared. A search's programs occupy some 9,000
    memory maps of the 65,530 that Linux allows a process. Several searches in one process would end in the
    compiler's "Cannot allocate memory".
    """
    jax.clear_caches()


def part(tree: Any, device: jax.Device) -> Any:
    """The part `[1, ...]` of a tree `[D, ...]` that a device holds.

    Not for several threads at a time: JAX makes an array's list of shards on the first request.
    """

    def of_device(leaf):
        return next(shard.data for shard in leaf.addressable_shards if shard.device == device)

    return jax.tree.map(of_device, tree)


def _fetch(kept, device, slot):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[0, slot], part(kept, device))
