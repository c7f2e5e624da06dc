"""Whether the programs of a config fit a slice, and bounds on their speed: a table and a JSON object."""

import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict
from rich.table import Table

from evonorms_jax.errors import UserError
from evonorms_jax.lowering.detection_programs import detection_programs
from evonorms_jax.lowering.gan_programs import gan_programs
from evonorms_jax.lowering.programs import Footprint, TpuProgram, measure, roofline_seconds
from evonorms_jax.lowering.search_programs import search_programs
from evonorms_jax.lowering.topology import Topology
from evonorms_jax.lowering.training_programs import training_programs
from evonorms_jax.runs.provenance import now, versions

#: The programs of each kind of config, by a key that only such a config has. Another task adds its own.
TASKS: dict[str, Callable[[ConfigDict, Topology], list[TpuProgram]]] = {
    "anchors": search_programs,
    "adam": gan_programs,
    "roi_align": detection_programs,
    "model": training_programs,
}


def programs_of(config: ConfigDict, topology: Topology) -> list[TpuProgram]:
    """The programs of a config on a slice.

    Raises:
      ValueError: if the config is of no known kind, or wrong.
      DataNotFoundError: if its data set is neither well-known nor there.
    """
    for key, build in TASKS.items():
        if key in config:
            return build(config, topology)
    raise UserError(f"the config describes no task to compile: it has none of the keys {', '.join(TASKS)}")


def measure_all(
    programs: Sequence[TpuProgram],
    topology: Topology,
    show: Callable[[str], None],
    save: Callable[[list[Footprint]], None],
) -> list[Footprint]:
    """Compiles the programs in order. `show` gets the name of each, and `save` all results so far."""
    footprints: list[Footprint] = []
    for number, program in enumerate(programs, 1):
        show(f"compiling {number} of {len(programs)}: {program.name}")
        footprints.append(measure(program, topology.chip))
        save(footprints)
    return footprints


def complaint(footprints: Sequence[Footprint], topology: Topology) -> str | None:
    """Names the program that exceeds a chip's memory by most, and the setting to lower. None if all fit."""
    worst = max(footprints, key=lambda footprint: footprint.excess)
    if not worst.excess:
        return None
    chip, program = topology.chip, worst.program
    return (
        f"{program.name} needs {worst.excess / 2**30:.2f} GiB more than the {chip.hbm / 2**30:g} GiB "
        f"of a {chip.name} device: lower {program.setting}"
    )


def table(footprints: Sequence[Footprint], topology: Topology) -> Table:
    """The footprints for people."""
    chip = topology.chip
    slice_of = f"{topology.name}, {len(topology.devices)} devices of {chip.hbm / 2**30:g} GiB each"
    rows = Table(title=f"{slice_of}. Bounds are no measurements.")
    rows.add_column("program")
    columns = "build s,CPU s,arguments,temporaries,code,HBM GiB,GFLOP/step,MB/step"
    for column in (*columns.split(","), "bound ms/step", "bound images/s"):
        rows.add_column(column, justify="right")
    for one in footprints:
        memory = [one.memory.get(name, 0) / 2**30 for name in ("argument", "temp", "generated_code")]
        seconds = roofline_seconds(one.step, chip)
        images = f"{one.program.images / seconds:,.0f}" if one.program.images and seconds else ""
        rows.add_row(
            one.program.name,
            f"{one.compile_seconds:.0f}",
            f"{one.cpu_seconds:.0f}",
            *(f"{size:.3f}" for size in memory),
            f"{one.total_memory / 2**30:.2f}" if not one.excess else f"+{one.excess / 2**30:.2f}",
            f"{one.step.flops / 1e9:,.1f}",
            f"{one.step.bytes / 1e6:,.0f}",
            f"{1e3 * seconds:.2f}",
            images,
        )
    return rows


def to_json(footprints: Sequence[Footprint], topology: Topology, arguments: Sequence[str]) -> dict[str, Any]:
    """The footprints as a JSON object, with the arguments of the command, versions and date."""
    return {
        "arguments": list(arguments),
        "topology": topology.name,
        "devices": len(topology.devices),
        "chip": topology.chip._asdict(),
        "jax": versions()["jax"],
        "libtpu": importlib.metadata.version("libtpu"),
        "date": now().date().isoformat(),
        "fits": not any(footprint.excess for footprint in footprints),
        "bound_candidates_per_hour": bound_candidates_per_hour(footprints, topology),
        "programs": [footprint.to_json(topology.chip) for footprint in footprints],
    }


def bound_candidates_per_hour(footprints: Sequence[Footprint], topology: Topology) -> float | None:
    """The bound on candidates an hour, each trained in full on all anchors. None for a training."""
    seconds = sum(
        roofline_seconds(one.run, topology.chip) / one.program.candidates
        for one in footprints
        if one.program.candidates
    )
    return 3600 * len(topology.devices) / seconds if seconds else None
