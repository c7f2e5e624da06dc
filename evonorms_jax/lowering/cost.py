"""FLOPs and bytes of a compiled program, with its loops counted as often as they run.

XLA's cost analysis counts the body of a while loop once, whatever its number of iterations. Here every body
is analyzed by itself, as the entry of a module, and multiplied by the trip count. XLA has proved some of
these counts. Scopes of `counted_loop` tell others. The caller gives the rest by the origin of a loop, such as
the nodes of a graph that is data.
Of the branches of a conditional, the most expensive one counts, as in XLA's analysis.

Bytes are those of the operands and results of every fused operation, wherever they lie. XLA:TPU keeps small
arrays in on-chip memory, so bytes from and to HBM can be fewer.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax

# Parser and analysis are not in JAX's public names. Public `cost_analysis()` takes whole programs only.
from jax._src.lib import _jax
from jaxlib import _hlo

from evonorms_jax.search_space.target import COUNTED

_HEAD = re.compile(r"^(?:ENTRY )?%([\w.\-]+) \(")
_ATTRIBUTE = re.compile(r" \w+=(\{%[^}]*\}|%[\w.\-]+)")
_NAME = re.compile(r"%([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_ORIGIN = re.compile(r'op_name="([^"]*)"')
#: Share of the program below which an iteration of unknown number is left out of reports, such as that of a
#: random draw by rejection.
_NEGLIGIBLE = 1e-3


class Cost(NamedTuple):
    """The floating-point operations of a computation, and the bytes that it reads and writes."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other):
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __sub__(self, other):
        return self + other.times(-1)

    def times(self, factor: float) -> "Cost":
        return Cost(self.flops * factor, self.bytes * factor)

    def most(self, other: "Cost") -> "Cost":
        """The larger of both, each number by itself."""
        return Cost(max(self.flops, other.flops), max(self.bytes, other.bytes))


class _Loop(NamedTuple):
    body: str
    origin: str  # the operation of the traced program that it comes from
    trips: float | None


class ProgramCost:
    """The costs of an optimized program.

    Args:
      text: `compiled.as_text()`.
      trips: iterations of loops whose number is not known, by a regular expression for their origin.
        The first one that matches counts.
    """

    def __init__(self, text: str, trips: Mapping[str, float]):
        self._computations, self._entry = _split(text)
        self._given = trips
        self._unknown: dict[str, Cost] = {}  # iterations of loops of unknown length, by their origin

    @property
    def total(self) -> Cost:
        """The cost of a run of the program."""
        return self._exact(self._entry)

    @property
    def once_only(self) -> list[str]:
        """Origins of loops of unknown length, which count once, without those of a negligible iteration."""
        least = self.total.times(_NEGLIGIBLE)
        return [
            origin
            for origin, one in self._unknown.items()
            if one.flops > least.flops or one.bytes > least.bytes
        ]

    def iteration(self, pattern: str) -> Cost:
        """The cost of one iteration of the dearest loop whose origin matches.

        Raises:
          LookupError: if no loop does.
        """
        found = [loop for name in self._computations for loop in self._loops(name)]
        bodies = [self._exact(loop.body) for loop in found if re.search(pattern, loop.origin)]
        if not bodies:
            raise LookupError(f"the program has no loop from {pattern!r}")
        return functools.reduce(Cost.most, bodies)

    @functools.cache  # noqa: B019 - lives as long as the one instance that is asked
    def _exact(self, name: str) -> Cost:
        cost = self._once(name)
        for loop in self._loops(name):
            cost += self._exact(loop.body).times(self._trips(loop)) - self._once(loop.body)
        for branches in self._conditionals(name):
            exact, once = ([count(branch) for branch in branches] for count in (self._exact, self._once))
            cost += functools.reduce(Cost.most, exact) - functools.reduce(Cost.most, once)
        return cost

    @functools.cache  # noqa: B019
    def _once(self, name: str) -> Cost:
        """XLA's own analysis, in which every body counts once."""
        parts = [self._computations[callee] for callee in self._reached(name)]
        parts.append("ENTRY " + self._computations[name])
        module = _hlo.hlo_module_from_text("HloModule part\n\n" + "\n\n".join(parts))
        found = _jax.hlo_module_cost_analysis(jax.local_devices(backend="cpu")[0].client, module)
        return Cost(found.get("flops", 0.0), found.get("bytes accessed", 0.0))

    def _reached(self, name: str) -> Iterator[str]:
        """All computations below one, each after those that it calls."""
        seen = {name}

        def visit(caller):
            for callee in self._callees(self._computations[caller]):
                if callee not in seen:
                    seen.add(callee)
                    yield from visit(callee)
                    yield callee

        return visit(name)

    def _loops(self, name: str) -> list[_Loop]:
        loops = []
        for line in self._computations[name].splitlines():
            if " while(" in line:
                body = re.search(r"body=%([\w.\-]+)", line)[1]
                trips, origin = _TRIPS.search(line), _ORIGIN.search(line)
                loops.append(_Loop(body, origin[1] if origin else "", trips and float(trips[1])))
        return loops

    def _conditionals(self, name: str) -> list[list[str]]:
        lines = self._computations[name].splitlines()
        return [list(self._callees(line)) for line in lines if " conditional(" in line]

    def _callees(self, text: str) -> Iterator[str]:
        """Computations in the attributes of instructions."""
        for group in _ATTRIBUTE.findall(text):
            yield from (callee for callee in _NAME.findall(group) if callee in self._computations)

    def _trips(self, loop: _Loop) -> float:
        if loop.trips is not None:
            return loop.trips
        if counted := COUNTED.search(loop.origin):
            return float(counted[1])
        for pattern, trips in self._given.items():
            if re.search(pattern, loop.origin):
                return trips
        self._unknown[loop.origin] = self._unknown.get(loop.origin, Cost()).most(self._exact(loop.body))
        return 1.0


def _split(text: str) -> tuple[dict[str, str], str]:
    """The computations of a module by name, and the name of its entry."""
    computations, entry, lines, name = {}, "", [], None
    # The tables of source lines, which frames refer to, are not a part of any computation.
    for line in re.sub(r" stack_frame_id=\d+", "", text).splitlines():
        if match := _HEAD.match(line):
            name, lines = match[1], []
            entry = name if line.startswith("ENTRY ") else entry
            line = line.removeprefix("ENTRY ")
        if name is not None:
            lines.append(line)
            if line.startswith("}"):
                computations[name], name = "\n".join(lines), None
    return computations, entry
