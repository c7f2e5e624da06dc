"""How often do the early tests reject a layer that would have been accepted?

  python -m experiments.benchmarks.false_rejections --config=experiments/configs/search_mnist5k.py \\
      --workdir=runs/benchmarks/false_rejections --random=300 --mutated=150

A sample of random graphs and mutated known layers, without inert graphs and duplicates, goes through the
tests and the proxy task with `flat` and the early hurdle off. Then both are applied to it: `flat` looks at
the probes, and the hurdle at the accuracy on the cheapest anchor after a few steps, for several numbers of
steps and thresholds. A row gives the share of the bad candidates that a test would have saved from training,
and the accepted ones that it would have lost.

Writes false_rejections.json into the work directory.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags as absl_flags
from absl import logging
from ml_collections import ConfigDict
from rich.table import Table

from evonorms_jax.evolution import rejection
from evonorms_jax.evolution.history import Evaluation
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.search_space import BASELINES, CATALOG
from experiments import flags
from experiments.benchmarks import results
from experiments.benchmarks.candidates import mutants, random_graphs, rounds

FLAGS = absl_flags.FLAGS
#: Numbers of steps of the hurdle, and thresholds as multiples of chance.
STEPS, THRESHOLDS = (15, 25, 40), (1.01, 1.1, 1.2, 1.5)


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    flags.define_config()
    flags.define_cpu_devices()
    absl_flags.DEFINE_integer("random", 300, "Number of random graphs.", lower_bound=0)
    absl_flags.DEFINE_integer("mutated", 150, "Number of known layers mutated twice.", lower_bound=0)


def main(argv):
    """Measures, prints the table, and writes the results."""
    del argv
    flags.use_cpu_devices(FLAGS.cpu_devices)
    measured = measure(FLAGS.config, FLAGS.random, FLAGS.mutated)
    results.publish(FLAGS.workdir, "false_rejections.json", measured, table(measured))


def measure(config: ConfigDict, random: int, mutated: int) -> dict[str, Any]:
    """The outcomes of the sample and the rates of the early tests, as a JSON object."""
    config = config.copy_and_resolve_references()
    config.rejection.allow_flat, config.rejection.hurdle_steps = True, 0
    drawn = random_graphs(random, config.seed)
    drawn += mutants([*BASELINES.values(), *CATALOG.values()], mutated, config.seed)
    graphs = list({rejection.fingerprint(g): g for g in drawn if not rejection.inert(g)}.values())
    evaluator = make_evaluator(config)
    evaluations: list[Evaluation] = []
    for part in rounds(graphs, config.evolution.round_size):
        evaluations += evaluator.evaluate(part)
        logging.info("%d of %d candidates trained", len(evaluations), len(graphs))
    steps = [count for count in STEPS if count < config.rejection.quality_steps]
    config.anchors, config.rejection.stability_anchor = (evaluator.anchors[0].name,), ""
    stable = [i for i, each in enumerate(evaluations) if each.outcome != "unstable"]
    curves = make_evaluator(config).learning_curves([graphs[i] for i in stable], steps)
    early = {i: next(iter(curve.values())) for i, curve in zip(stable, curves, strict=True)}
    rows = [
        {
            "equation": str(graph),
            "outcome": evaluation.outcome,
            "scores": evaluation.scores,
            "flat": rejection.flat(graph) is not None,
            "early": early.get(place),
        }
        for place, (graph, evaluation) in enumerate(zip(graphs, evaluations, strict=True))
    ]
    return {
        "machine": results.machine(),
        "config": config.to_dict(),
        "drawn": {"random": random, "mutated": mutated, "trained": len(graphs)},
        "anchor": evaluator.anchors[0].name,
        "steps": steps,
        "candidates": rows,
        "rates": rates(rows, steps, evaluator.chance),
    }


def rates(rows: Sequence[Mapping[str, Any]], steps: Sequence[int], chance: float) -> list[dict[str, Any]]:
    """Rejected candidates of each test, bad and good. The hurdle sees none that is flat or unstable."""
    found = [_rate("flat", rows, [row["flat"] for row in rows])]
    left = [row for row in rows if not row["flat"] and row["early"] is not None]
    for column, count in enumerate(steps):
        for threshold in THRESHOLDS:
            fails = [row["early"][column] < threshold * chance for row in left]
            found.append(_rate(f"{count} steps, {threshold:g} x chance", left, fails))
    return found


def _rate(name: str, rows: Sequence[Mapping[str, Any]], fails: Sequence[bool]) -> dict[str, Any]:
    good = [row["outcome"] == "accepted" for row in rows]
    lost = [row for row, fail, fine in zip(rows, fails, good, strict=True) if fail and fine]
    return {
        "test": name,
        "bad": good.count(False),
        "saved": sum(fail and not fine for fail, fine in zip(fails, good, strict=True)),
        "good": good.count(True),
        "lost": len(lost),
        "lost_layers": [row["equation"] for row in lost],
    }


def table(measured: Mapping[str, Any]) -> Table:
    """A row for each test."""
    drawn = measured["drawn"]
    source = f"{drawn['random']} random and {drawn['mutated']} mutated"
    title = f"{drawn['trained']} candidates trained through, of {source}"
    shown = Table("test", "bad candidates rejected", "accepted candidates lost", title=title)
    for row in measured["rates"]:
        shown.add_row(row["test"], f"{row['saved']} of {row['bad']}", f"{row['lost']} of {row['good']}")
    return shown


if __name__ == "__main__":
    define_flags()
    flags.run(main, example="experiments/configs/search_mnist5k.py", holds="workdir")
