"""Do layers that are known to be good pass the tests of a search? Run it before a search on new data.

For each known layer: the largest gradient norm of the stability test, and the validation accuracy on each
anchor after the steps of the quality test and after all steps of the proxy task. A proxy task is useful if
they all pass, with room to spare. Example:

  python -m experiments.benchmarks.calibration --config=experiments/configs/search_mnist5k.py \\
      --workdir=runs/benchmarks/calibration --config.proxy.learning_rate=0.05

Writes calibration.json into the work directory.
"""

from absl import logging
from rich.console import Console
from rich.table import Table

from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.search_space import BASELINES, CATALOG
from experiments import flags
from experiments.benchmarks.candidates import write_figures

CONFIG, WORKDIR = flags.define_config()
CPU_DEVICES = flags.define_cpu_devices()


def main(argv):
    """Measures the known layers, and prints a table."""
    del argv
    flags.use_cpu_devices(CPU_DEVICES.value)
    config = CONFIG.value
    evaluator = make_evaluator(config)
    threshold = evaluator.threshold
    steps = (config.rejection.quality_steps, config.proxy.steps)
    names = [anchor.name for anchor in evaluator.anchors]

    layers = BASELINES | CATALOG
    logging.info("building the programs, then training %d layers", len(layers))
    norms = evaluator.stability(list(layers.values()))
    all_curves = evaluator.learning_curves(list(layers.values()), steps)
    rows = []
    for name, (norm, _), curves in zip(layers, norms, all_curves, strict=True):
        passes = norm <= config.rejection.stability_norm and all(c[0] >= threshold for c in curves.values())
        rows.append({"layer": name, "norm": norm, "accuracies": curves, "passes": passes})

    title = f"accuracy in % after {steps[0]} / {steps[1]} steps; {100 * threshold:.0f} % is asked for"
    table = Table("layer", "gradient norm", *names, "passes", title=title)
    for row in rows:
        cells = [" / ".join(f"{100 * a:.0f}" for a in row["accuracies"][name]) for name in names]
        table.add_row(row["layer"], f"{row['norm']:.2g}", *cells, "yes" if row["passes"] else "NO")
    Console().print(table)

    content = {"config": config.to_dict(), "threshold": threshold, "steps": steps, "layers": rows}
    write_figures(WORKDIR.value, "calibration.json", content)


if __name__ == "__main__":
    flags.run(main, example="experiments/configs/search_mnist5k.py", holds=WORKDIR)
