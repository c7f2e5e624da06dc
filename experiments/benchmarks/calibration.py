"""Checks that layers known to be good pass the tests of a search. Run it before a search on new data.

For each known layer it measures the largest gradient norm of the stability test, and on each anchor the
validation accuracy after the steps of the quality test and after all steps of the proxy task. A proxy task is
useful if all of them pass with a margin. Example:

  python -m experiments.benchmarks.calibration --config=experiments/configs/search_mnist5k.py \\
      --workdir=runs/benchmarks/calibration --config.proxy.learning_rate=0.05

Writes calibration.json into the work directory.
"""

from typing import Any

from absl import flags as absl_flags
from absl import logging
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.search_space import BASELINES, CATALOG
from experiments import flags
from experiments.benchmarks import results

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    flags.define_config()
    flags.define_cpu_devices()


def main(argv):
    """Measures the known layers, prints the table, and writes the results."""
    del argv
    flags.use_cpu_devices(FLAGS.cpu_devices)
    measured = measure(FLAGS.config)
    Console().print(table(measured))
    results.write(FLAGS.workdir, "calibration.json", measured)


def measure(config: ConfigDict) -> dict[str, Any]:
    """Gradient norm and accuracies of each known layer, as a JSON object."""
    evaluator = make_evaluator(config)
    threshold = evaluator.threshold
    steps = (config.rejection.quality_steps, config.proxy.steps)
    layers = BASELINES | CATALOG
    logging.info("building the programs, then training %d layers", len(layers))
    norms = evaluator.stability(list(layers.values()))
    all_curves = evaluator.learning_curves(list(layers.values()), steps)
    rows = []
    for name, (norm, _), curves in zip(layers, norms, all_curves, strict=True):
        passes = norm <= config.rejection.stability_norm and all(c[0] >= threshold for c in curves.values())
        rows.append({"layer": name, "norm": norm, "accuracies": curves, "passes": passes})
    return {"config": config.to_dict(), "threshold": threshold, "steps": steps, "layers": rows}


def table(measured: dict[str, Any]) -> Table:
    """A row for each layer, with its accuracies by anchor and its verdict."""
    first, last = measured["steps"]
    threshold = f"{100 * measured['threshold']:.0f} %"
    anchors = list(measured["layers"][0]["accuracies"])
    title = f"accuracy in % after {first} / {last} steps; {threshold} is required"
    shown = Table("layer", "gradient norm", *anchors, "passes", title=title)
    for row in measured["layers"]:
        cells = [" / ".join(f"{100 * a:.0f}" for a in row["accuracies"][name]) for name in anchors]
        shown.add_row(row["layer"], f"{row['norm']:.2g}", *cells, "yes" if row["passes"] else "NO")
    return shown


if __name__ == "__main__":
    define_flags()
    flags.run(main, example="experiments/configs/search_mnist5k.py", holds="workdir")
