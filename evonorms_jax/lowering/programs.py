"""Compiles programs for a slice and reads their memory, FLOPs and bytes on a chip.

A task of any kind plugs in with a list of `TpuProgram`: see `search_programs.py` and `training_programs.py`.
"""

import contextlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

from evonorms_jax.lowering.chips import Chip
from evonorms_jax.lowering.cost import Cost, ProgramCost
from evonorms_jax.lowering.topology import libtpu_environment

_MEMORY = ("argument", "output", "alias", "temp", "generated_code")
#: In the place of an origin, for all loops of a program without a text.
UNREADABLE = "any loop of a program that XLA cannot print"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class TpuProgram(NamedTuple):
    """A program to compile for a TPU.

    Attributes:
      name: such as "train step" or "resnet50_cifar: universal training".
      lower: lowers it for the devices of a topology.
      setting: setting to lower if it does not fit, such as "batch_size".
      step: regular expression for the origin of the loop over steps. None means that the program is one step.
      images: images of a step, on all devices of a training and on one of a search. 0 gives no images/s.
      trips: iterations of loops whose number is data, by a regular expression for their origin.
      candidates: candidates that a run trains in full on a device.
      options: options of XLA that the program is compiled with.
    """

    name: str
    lower: Callable[[], jax.stages.Lowered]
    setting: str
    step: str | None = None
    images: int = 0
    trips: Mapping[str, float] = {}
    candidates: int = 0
    options: Mapping[str, Any] = {}


class Footprint(NamedTuple):
    """A program on one device, as XLA:TPU reports it. Sizes are in bytes.

    Attributes:
      program: the program.
      compile_seconds: time that the compiler took here.
      cpu_seconds: time of all CPU cores in it, which other work on the machine changes less.
      memory: HBM by purpose: argument, output, alias (outputs in place of arguments), temp, generated_code.
      excess: HBM needed beyond that of the chip, 0 if it fits.
      step: cost of a step.
      run: cost of a run of the program, with all of its steps.
      once_only: origins of loops that are counted once, because their number is unknown, if a further
        iteration would change the cost by more than a thousandth.
    """

    program: TpuProgram
    compile_seconds: float
    cpu_seconds: float
    memory: dict[str, int]
    excess: float
    step: Cost = Cost()
    run: Cost = Cost()
    once_only: Sequence[str] = ()

    @property
    def total_memory(self) -> int:
        """HBM that the program needs in all."""
        return sum(self.memory.values()) - 2 * self.memory.get("alias", 0)

    def to_json(self, chip: Chip) -> dict[str, Any]:
        """A JSON object. Seconds and images per second are bounds by the data sheet of the chip."""
        step, run = (roofline_seconds(cost, chip) for cost in (self.step, self.run))
        images = self.program.images
        return {
            "program": self.program.name,
            "compile_seconds": round(self.compile_seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "memory_bytes": self.memory,
            "hbm_bytes": self.total_memory,
            "chip_hbm_bytes": chip.hbm,
            "excess_bytes": self.excess,
            "step": self.step._asdict() | {"roofline_seconds": step},
            "run": self.run._asdict() | {"roofline_seconds": run},
            "bound_images_per_second": images / step if images and step else None,
            "loops_counted_once": list(self.once_only),
        }


def roofline_seconds(cost: Cost, chip: Chip) -> float:
    """max(FLOPs / peak, bytes / bandwidth): no run is shorter, if all bytes are those of HBM."""
    return max(cost.flops / chip.flops, cost.bytes / chip.bandwidth)


def measure(program: TpuProgram, chip: Chip) -> Footprint:
    """Compiles a program and reads its footprint.

    A program that the compiler refuses for its memory has a footprint with the excess alone.
    """
    started, cpu_started = time.monotonic(), time.process_time()

    def seconds():
        return time.monotonic() - started, time.process_time() - cpu_started

    try:
        compiled = compile_ahead(program)
    except jax.errors.JaxRuntimeError as error:
        excess = _excess(str(error))
        if excess is None:
            raise
        return Footprint(program, *seconds(), {}, excess)
    return footprint(program, compiled, *seconds(), chip)


def footprint(
    program: TpuProgram, compiled: jax.stages.Compiled, seconds: float, cpu_seconds: float, chip: Chip
) -> Footprint:
    """The footprint of a program that took so many seconds to compile, and so many of CPU time."""
    analysis = compiled.memory_analysis()
    memory = {name: getattr(analysis, f"{name}_size_in_bytes") for name in _MEMORY}
    found = Footprint(program, seconds, cpu_seconds, memory, 0, *_costs(program, compiled))
    return found._replace(excess=max(0, found.total_memory - chip.hbm))


def _costs(program: TpuProgram, compiled: jax.stages.Compiled) -> tuple[Cost, Cost, Sequence[str]]:
    """The costs of a step and of a run, and the origins of loops that are counted once."""
    text = text_of(compiled)
    if text is None:
        found = compiled.cost_analysis() or {}
        whole = Cost(found.get("flops", 0.0), found.get("bytes accessed", 0.0))
        return whole if program.step is None else Cost(), whole, (UNREADABLE,)
    cost = ProgramCost(text, program.trips)
    step = cost.total if program.step is None else cost.iteration(program.step)
    return step, cost.total, cost.once_only


def text_of(compiled: jax.stages.Compiled) -> str | None:
    """The optimized program as text, or None if XLA cannot print it.

    The compiler of libtpu 0.0.52 writes some programs for v6e in a form that its own reader refuses.
    """
    try:
        return compiled.as_text()
    except jax.errors.JaxRuntimeError:
        return None


def compile_ahead(program: TpuProgram) -> jax.stages.Compiled:
    """Compiles a program without JAX's persistent cache."""
    with _without_cache(), libtpu_environment():
        return program.lower().compile(compiler_options=dict(program.options))


@contextlib.contextmanager
def _without_cache():
    """Keeps programs out of JAX's persistent cache: one for a TPU could not be read back without a TPU."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX asks once whether there is a cache
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _excess(message: str) -> float | None:
    """Bytes by which a program exceeds HBM, by the compiler's error. None for another error."""
    size = r"([\d.]+)([KMGT]?)"
    if match := re.search(rf"capacity by {size}", message):
        return float(match[1]) * _UNITS[match[2]]
    if match := re.search(rf"\({size}\) exceeds available HBM \({size}\)", message):
        return float(match[1]) * _UNITS[match[2]] - float(match[3]) * _UNITS[match[4]]
    return None
