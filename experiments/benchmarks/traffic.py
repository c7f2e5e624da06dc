"""Memory traffic and temporaries of a training step on a TPU, layer by layer, as XLA:TPU reports them.

  python -m experiments.benchmarks.traffic
  python -m experiments.benchmarks.traffic --networks=mobilenet_v2 --layers=evonorm_s0 --image_size=112

It needs `libtpu` and no TPU: every program is compiled ahead of time for the chips of the topology. They
share the batch, and the images of a chip share their batch statistics. Bytes are those of a chip and a step.
The first number is XLA's, of the operands and results of all fused operations wherever they lie. The second
counts only those in HBM, see `evonorms_jax/lowering/transfers.py`. A layer is a name, a layer file or an
equation, "abs(x) / std_bwh(x)".

A program of ResNet-50 takes 2 to 7 minutes of CPU time to compile. With `--keep` the rows of an earlier run
stay in the file, and only the others are compiled. Layers that have changed since need a new file.
"""

import functools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags
from absl import logging

from evonorms_jax.errors import UserError
from evonorms_jax.layers import LayerConstructor, norm_act
from evonorms_jax.lowering.programs import TpuProgram, compile_ahead, text_of
from evonorms_jax.lowering.topology import get_topology
from evonorms_jax.lowering.transfers import hbm_bytes
from evonorms_jax.models import get_model
from evonorms_jax.runs.provenance import now, versions
from evonorms_jax.search_space import Graph
from evonorms_jax.training.mesh import data_mesh, replicated, split
from evonorms_jax.training.optimizer import make_schedule, sgd
from evonorms_jax.training.steps import Images, StepSettings, make_init, make_train_step
from experiments import flags

REFERENCE = "bn_relu"
_EVONORMS = [f"evonorm_{series}{number}" for series in "bs" for number in range(3)]
#: The default rows after the reference.
ROWS = [*_EVONORMS, "frn_tlu", "gn_relu", "abs(x) / std_bwh(x)"]
_CLASSES = 1000

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    absl_flags.DEFINE_list("networks", "resnet50", "Networks of the model registry.")
    absl_flags.DEFINE_list("layers", ",".join(ROWS), f"Layers to compare with {REFERENCE}.")
    absl_flags.DEFINE_string(
        "topology", "v5e:2x4", "Slice: a topology, or an accelerator type such as v5litepod-8."
    )
    absl_flags.DEFINE_integer("chip_batch", 128, "Number of images of a chip.", lower_bound=1)
    absl_flags.DEFINE_integer("image_size", 224, "Side of an image in pixels.", lower_bound=1)
    absl_flags.DEFINE_string("json", "runs/benchmarks/traffic.json", "File for the results.")
    absl_flags.DEFINE_bool("keep", False, "Keep the rows of the file that have the same settings.")


def main(argv):
    """Compiles, prints the table, and writes the results after every program."""
    del argv
    path = Path(FLAGS.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    devices = get_topology(FLAGS.topology).devices
    measured = {
        "topology": FLAGS.topology,
        "chip_batch": FLAGS.chip_batch,
        "image_size": FLAGS.image_size,
        **versions(),
        "date": now().date().isoformat(),
    }
    rows = kept_rows(path, measured) if FLAGS.keep else []
    for row in measure(FLAGS.networks, FLAGS.layers, devices, FLAGS.chip_batch, FLAGS.image_size, rows):
        rows += [] if row in rows else [row]
        path.write_text(json.dumps(measured | {"rows": rows}, indent=1) + "\n")
    measured["rows"] = rows
    print(table(measured))
    print(f"written to {path}")


def kept_rows(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier run. Raises `UserError` if its settings were others, whatever its date."""
    if not path.exists():
        return []
    earlier = json.loads(path.read_text())
    for key, value in settings.items():
        if key != "date" and earlier.get(key) != value:
            raise UserError(
                f"--keep: {path} has {key}={earlier.get(key)!r}, not {value!r}: name another file"
            )
    return earlier["rows"]


def measure(
    networks: Sequence[str],
    layers: Sequence[str],
    devices: Sequence[jax.Device],
    batch: int,
    side: int,
    known: Sequence[dict[str, Any]] = (),
) -> Iterator[dict[str, Any]]:
    """Yields one row for each network and layer, the reference first in each network.

    Args:
      networks: names of the model registry.
      layers: layers as `constructor` reads them.
      devices: chips that share a batch.
      batch: number of images of a chip.
      side: side of an image in pixels.
      known: rows that are not compiled again.
    """
    found = {(row["network"], row["layer"]): row for row in known}
    constructors = {name: constructor(name) for name in (REFERENCE, *layers)}
    for network in networks:
        reference = None
        for name, make in constructors.items():
            row = found.get((network, name)) or {"network": network, "layer": name} | _measured(
                network, make, devices, batch, side
            )
            reference = reference or row
            for key in ("bytes", "hbm_bytes", "temporary_bytes"):
                row[f"{key}_ratio"] = row[key] / reference[key]
            logging.info("%s with %s: %.3f of the bytes", network, name, row["bytes_ratio"])
            yield row


def _measured(*arguments: Any) -> dict[str, Any]:
    started, cpu_started = time.monotonic(), time.process_time()
    compiled = compile_step(*arguments)
    if (text := text_of(compiled)) is None:
        raise UserError("XLA cannot print this program for the topology, so its bytes of HBM are unknown")
    return {
        "bytes": compiled.cost_analysis()["bytes accessed"],
        "hbm_bytes": hbm_bytes(text),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "compile_seconds": round(time.monotonic() - started),
        "cpu_seconds": round(time.process_time() - cpu_started),
    }


def constructor(layer: str) -> LayerConstructor:
    """The layer of a row: a name or file as `norm_act` reads it, or an equation."""
    return norm_act(Graph.parse(layer) if "(" in layer and ".json" not in layer else layer)


def compile_step(
    network: str, make: LayerConstructor, devices: Sequence[jax.Device], batch: int, side: int
) -> jax.stages.Compiled:
    """A training step in bfloat16 with momentum, weight decay and label smoothing, compiled for `devices`."""
    model = get_model(network).build(make, _CLASSES, dtype=jnp.bfloat16)
    optimizer = sgd(make_schedule(learning_rate=0.1, steps=1), momentum=0.9, weight_decay=1e-4)
    images = Images((side, side, 3), _CLASSES, np.zeros(3, np.float32), np.ones(3, np.float32))
    mesh = data_mesh(devices, groups=len(devices))
    settings = StepSettings(statistics_batch=batch, label_smoothing=0.1)
    state = jax.eval_shape(make_init(model, optimizer, images, mesh, average=False), jax.random.key(0))
    key = jax.eval_shape(lambda: jax.random.key(0))
    state, key = jax.tree.map(lambda leaf: leaf.update(sharding=replicated(mesh)), (state, key))
    count = len(devices) * batch
    pixels = jax.ShapeDtypeStruct((count, side, side, 3), jnp.uint8, sharding=split(mesh))
    labels = jax.ShapeDtypeStruct((count,), jnp.int32, sharding=split(mesh))
    step = make_train_step(model, optimizer, images, mesh, settings)
    lower = functools.partial(step.lower, state, (pixels, labels), key)
    return compile_ahead(TpuProgram("training step", lower, "chip_batch"))


def table(measured: dict[str, Any]) -> str:
    """The rows as aligned text."""
    lines = [
        f"{measured['topology']}, {measured['chip_batch']} images of {measured['image_size']} pixels a chip, "
        f"JAX {measured['jax']}, {measured['date']}",
        "",
        f"{'network':<16} {'layer':<22} {'GB':>7} {'ratio':>6} {'HBM GB':>7} {'ratio':>6} "
        f"{'temporary GiB':>14} {'ratio':>6}",
    ]
    for row in measured["rows"]:
        lines.append(
            f"{row['network']:<16} {row['layer']:<22} {row['bytes'] / 1e9:>7.2f} {row['bytes_ratio']:>6.3f} "
            f"{row['hbm_bytes'] / 1e9:>7.2f} {row['hbm_bytes_ratio']:>6.3f} "
            f"{row['temporary_bytes'] / 2**30:>14.3f} {row['temporary_bytes_ratio']:>6.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    define_flags()
    flags.run(main)
