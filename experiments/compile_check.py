"""Compiles the programs of a config for a TPU, on a machine without one.

XLA:TPU's own compiler tells the memory, FLOPs and bytes of each program. A search has programs for every
anchor, a training has a step on the mesh of the slice. Times, images/s and candidates/hour follow from the
data sheet of the chip. They are bounds and no measurements. The extra `compile` installs the compiler.

  python -m experiments.compile_check --config=experiments/configs/search_cifar10_b.py --topology=v5e:2x4
  python -m experiments.compile_check --config=experiments/configs/imagenet_resnet50.py \\
      --topology=v5litepod-8 --config.batch_size=2048 --json=resnet50.json

A program takes seconds to minutes to compile. The exit status is 1 if one does not fit into a chip.
"""

import json
import sys
from pathlib import Path

from absl import flags as absl_flags
from absl import logging
from rich.console import Console

from evonorms_jax.errors import UserError
from evonorms_jax.lowering import check
from evonorms_jax.lowering.topology import get_topology
from experiments import flags, process

CONFIG = flags.define_config_alone()
TOPOLOGY = flags.define_required(
    "topology", "Slice: a topology such as v5e:2x4, or an accelerator type such as v5litepod-8."
)
JSON = absl_flags.DEFINE_string("json", None, "File for the numbers, written after every program.")
ONLY = absl_flags.DEFINE_string("only", "", "Compile only the programs with this text in their name.")


def main(argv):
    """Flags to arguments."""
    del argv
    topology = get_topology(TOPOLOGY.value)
    programs = [one for one in check.programs_of(CONFIG.value, topology) if ONLY.value in one.name]
    if not programs:
        raise UserError(f"no program has {ONLY.value!r} in its name")

    def save(footprints):
        found = check.to_json(footprints, topology, sys.argv[1:])
        if JSON.value:
            Path(JSON.value).write_text(json.dumps(found, indent=1) + "\n")

    footprints = check.measure_all(programs, topology, logging.info, save)
    Console(width=160).print(check.table(footprints, topology))
    for origin in sorted({origin for one in footprints for origin in one.once_only}):
        logging.warning("nothing tells how often this loop runs, it counts once: %s", origin)
    if bound := check.bound_candidates_per_hour(footprints, topology):
        print(f"at most {bound:,.0f} candidates trained in full an hour, a bound")
    if (complaint := check.complaint(footprints, topology)) is not None:
        process.fail(complaint, process.FAILED)


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/search_cifar10_b.py")
