"""What the universal executor costs and saves: build time and step time beside a compiled graph.

For some layers on the first anchor of a config: seconds to build the training program, milliseconds a step,
and the number of steps from which building a program for the one layer pays off. Example:

  python -m experiments.benchmarks.executors --config=experiments/configs/search_mnist5k.py \\
      --workdir=runs/benchmarks/executors

Writes executors.json into the work directory. The compilation cache is off.
"""

import json
import time

import jax
from etils import epath
from rich.console import Console
from rich.table import Table

from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.search_space import BASELINES, CATALOG
from experiments import flags

CONFIG, WORKDIR = flags.define_config()
LAYERS = ("bn_relu", "gn_relu", "evonorm_b0", "evonorm_s0")
STEPS = 100


def main(argv):
    """Measures each layer with both executors in one process, and prints a table at the end."""
    del argv
    jax.config.update("jax_enable_compilation_cache", False)
    config = CONFIG.value.copy_and_resolve_references()
    config.rejection.enabled = False
    config.proxy.steps = config.rejection.quality_steps = STEPS
    config.anchors = config.anchors[:1]
    graphs = BASELINES | CATALOG

    rows = []
    universal = _evaluator(config, "universal")
    built = _seconds(universal, graphs[LAYERS[0]])
    for name in LAYERS:
        warm = _seconds(universal, graphs[name])
        compiled = _evaluator(config, "compiled")
        first, second = (_seconds(compiled, graphs[name]) for _ in range(2))
        rows.append(
            {
                "layer": name,
                "universal_step_ms": 1e3 * warm / STEPS,
                "compiled_step_ms": 1e3 * second / STEPS,
                "ratio": warm / second,
                "compiled_build_s": first - second,
                "pays_off_after_steps": STEPS * (first - second) / max(warm - second, 1e-9),
            }
        )
    _report(config.anchors[0], built - rows[0]["universal_step_ms"] * STEPS / 1e3, rows)


def _evaluator(config, executor: str):
    config.executor = executor
    return make_evaluator(config)


def _seconds(evaluator, graph) -> float:
    started = time.perf_counter()
    evaluator.evaluate(graph)
    return time.perf_counter() - started


def _report(anchor: str, built: float, rows: list) -> None:
    device = jax.devices()[0].device_kind
    title = f"{anchor}, {device}; the universal program took {built:.0f} s to build, once"
    columns = ("layer", "universal, ms/step", "compiled", "ratio", "build, s", "pays off after")
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(
            row["layer"],
            f"{row['universal_step_ms']:.1f}",
            f"{row['compiled_step_ms']:.1f}",
            f"{row['ratio']:.1f}",
            f"{row['compiled_build_s']:.1f}",
            f"{row['pays_off_after_steps']:.0f} steps",
        )
    Console().print(table)
    path = epath.Path(WORKDIR.value)
    path.mkdir(parents=True, exist_ok=True)
    content = {"anchor": anchor, "universal_build_s": built, "layers": rows}
    (path / "executors.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/search_mnist5k.py")
