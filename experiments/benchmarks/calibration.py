"""Checks that a proxy task can judge layers. Run it before a search on new data.

Three parts, all printed as tables:

1. The ladder: layers from pointwise functions over normalizers to normalizers with a nonlinearity, trained
   with several seeds, beside the known layers. A search with moments of a token has a ladder for token
   networks, whose norms need no nonlinearity.
2. The stability test of each anchor, from both sides: known layers should pass, pointwise functions fail.
3. Verdicts. (a) Every normalizer beats every pointwise layer by 4 deviations over the seeds. (b) The ladder
   rises from pointwise layers to normalizers, and to normalizers with a nonlinearity. (c) The deviation of
   the mean over the anchors is at most 2.5 points. (d) A full evaluation takes no more device time than on
   the anchors in `--reference`, with the settings of the reference. (e) Known layers pass all tests.

Example:

  python -m experiments.benchmarks.calibration --config=experiments/configs/search_mnist5k.py \\
      --workdir=runs/benchmarks/calibration --replicas=4 --config.proxy.learning_rate=0.1

Writes calibration.json into the work directory. Figures depend on the machine by rounding only, except the
times.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags as absl_flags
from absl import logging
from ml_collections import ConfigDict
from rich.table import Table

from evonorms_jax.evolution.evaluator import Evaluator
from evonorms_jax.evolution.history import percent_text, sample_deviation
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.search_space import BASELINES, CATALOG, OPS, TOKEN_LAYERS, Graph
from experiments import flags
from experiments.benchmarks import results

FLAGS = absl_flags.FLAGS


class Ladder(NamedTuple):
    """Layers whose order is known.

    Attributes:
      rungs: equations by rung. The first rung has pointwise functions, the others have normalizers.
      known: further normalizers, which should pass all tests.
    """

    rungs: dict[str, tuple[str, ...]]
    known: dict[str, Graph]


CONVOLUTIONS = Ladder(
    {
        "pointwise": (
            "x",
            "max(x, 0)",
            "tanh(x)",
            "x * sigmoid(x)",
            "tanh(x) * tanh(x) + tanh(x) * tanh(x)",
            "tanh(x + x)",
            "sqrt(x)",
        ),
        "normalizer": ("x / rms_wh(x)", "x / std_wh(x)", "x / std_bwh(x)"),
        "with nonlinearity": ("abs(x / std_wh(x))", "max(x / std_bwh(x), 0)", "abs(x) / std_bwh(x)"),
    },
    BASELINES | CATALOG,
)
TOKENS = Ladder(
    {
        "pointwise": ("x", "max(x, 0)", "tanh(x)", "erf(x)"),
        "normalizer": ("x / std_bwh(x)", "x / std_whc(x)"),
    },
    {name: TOKEN_LAYERS[name] for name in ("rms", "lnc")},
)
_KNOWN = "known"  # in place of a rung
#: The bounds of the verdicts: deviations between normalizers and pointwise layers, and points.
SEPARATION, LARGEST_DEVIATION = 4.0, 2.5
# The proxy task whose cost is the bound of verdict (d): the small anchors of two blocks for 150 steps.
_REFERENCE = {
    "anchors": ("resnet_small", "mobilenet_small", "efficientnet_small"),
    "proxy.steps": 150,
    "proxy.batch_size": 64,
    "proxy.replicas": 1,
}
_TIMED = "bn_relu"


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    flags.define_config()
    flags.define_cpu_devices()
    absl_flags.DEFINE_integer("replicas", 4, "Number of seeds.", lower_bound=2)
    absl_flags.DEFINE_bool("reference", True, "Time the small anchors too, for verdict (d).")


def main(argv):
    """Measures, prints the tables, and writes the results."""
    del argv
    flags.use_cpu_devices(FLAGS.cpu_devices)
    measured = measure(FLAGS.config, FLAGS.replicas, FLAGS.reference)
    tables = ladder_table(measured), stability_table(measured), verdict_table(measured)
    results.publish(FLAGS.workdir, "calibration.json", measured, *tables)


# -- Measurements


def measure(config: ConfigDict, replicas: int, reference: bool) -> dict[str, Any]:
    """The ladder, the stability tests and the verdicts, as a JSON object."""
    config = config.copy_and_resolve_references()
    config.proxy.replicas = replicas
    config.rejection.enabled = False  # all layers are trained to the end, and the tests are applied below
    evaluator = make_evaluator(config)
    ladder = ladder_of(config)
    rungs = {text: rung for rung, texts in ladder.rungs.items() for text in texts}
    layers = {text: Graph.parse(text) for text in rungs} | ladder.known
    tests = config.rejection
    steps = sorted({tests.hurdle_steps, tests.quality_steps, config.proxy.steps} - {0})
    logging.info("building the programs, then training %d layers with %d seeds", len(layers), replicas)
    all_curves = evaluator.replica_curves(list(layers.values()), steps, range(replicas))
    norms = stability_norms(config, list(layers.values()))
    rows = []
    for number, (name, curves) in enumerate(zip(layers, all_curves, strict=True)):
        column = steps.index(tests.quality_steps)
        first = {anchor: scores[0, column] for anchor, scores in curves.items()}  # the seed of the tests
        early = curves[evaluator.anchors[0].name][0, 0] >= tests.hurdle_threshold * evaluator.chance
        stable = {anchor: norm[number] <= config.rejection.stability_norm for anchor, norm in norms.items()}
        rows.append({
            "layer": name,
            "rung": rungs.get(name, _KNOWN),
            "norms": {anchor: norm[number] for anchor, norm in norms.items()},
            "stable": stable,
            "accuracies": {anchor: scores.tolist() for anchor, scores in curves.items()},
            "replicas": np.mean([scores[:, -1] for scores in curves.values()], axis=0).tolist(),
            "passes": bool(
                all(stable.values())
                and (early or not tests.hurdle_steps)
                and min(first.values()) >= evaluator.threshold
            ),
        })  # fmt: skip
    costs = {"here": seconds_of_evaluation(evaluator) / replicas}
    if reference:
        logging.info("building the programs of the reference, then timing it")
        costs["reference"] = seconds_of_evaluation(make_evaluator(_reference(config)))
    return {
        "machine": results.machine(),
        "config": config.to_dict(),
        "threshold": evaluator.threshold,
        "steps": steps,
        "layers": rows,
        "seconds": costs,
        "verdicts": [verdict._asdict() for verdict in verdicts(rows, costs)],
    }


def ladder_of(config: ConfigDict) -> Ladder:
    """That of token networks for a search with moments of a position, else that of convolutional networks."""
    of_tokens = any(OPS[name].index_set == "c" for name in config.search_space.ops)
    return TOKENS if of_tokens else CONVOLUTIONS


def stability_norms(config: ConfigDict, graphs: Sequence[Graph]) -> dict[str, list[float]]:
    """Largest gradient norms of the graphs in the stability test, on every anchor."""
    config, norms = config.copy_and_resolve_references(), {}
    for name in config.anchors:
        config.rejection.stability_anchor = name
        norms[name] = [norm for norm, _ in make_evaluator(config).stability(graphs)]
    return norms


def seconds_of_evaluation(evaluator: Evaluator) -> float:
    """Device seconds of the full proxy training of a known layer on all anchors, without builds."""
    graph = BASELINES[_TIMED]
    evaluator.learning_curves([graph], [1])  # builds the programs
    (evaluation,) = evaluator.evaluate([graph])
    return evaluation.seconds


def _reference(config: ConfigDict) -> ConfigDict:
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(_REFERENCE)
    changed.rejection.stability_anchor = ""
    return changed


# -- Verdicts


class Verdict(NamedTuple):
    """A condition of a useful proxy task, whether it holds, and the numbers behind it in one line."""

    name: str
    passed: bool
    evidence: str


def verdicts(rows: Sequence[Mapping[str, Any]], seconds: Mapping[str, float]) -> list[Verdict]:
    """The conditions (a) to (e). Without a reference in `seconds`, (d) is left out."""
    means = {row["layer"]: 100 * float(np.mean(row["replicas"])) for row in rows}
    variances = {row["layer"]: 1e4 * float(np.var(row["replicas"], ddof=1)) for row in rows}
    rungs: dict[str, list[str]] = {}
    for row in rows:
        rungs.setdefault(row["rung"], []).append(row["layer"])
    known = rungs.pop(_KNOWN, [])
    pointwise, *upper = rungs.values()
    normalizers = [*itertools.chain(*upper), *known]
    deviation = float(np.sqrt(np.mean([variances[name] for name in normalizers])))
    best, worst = max(pointwise, key=means.get), min(normalizers, key=means.get)
    gap = (means[worst] - means[best]) / max(deviation, 1e-9)
    levels = [means[best], *(float(np.mean([means[name] for name in names])) for names in upper)]
    failed = [row["layer"] for row in rows if row["rung"] == _KNOWN and not row["passes"]]
    found = [
        Verdict(
            "(a) normalizers beat pointwise layers",
            gap >= SEPARATION,
            f"{worst} {means[worst]:.1f} against {best} {means[best]:.1f}: {gap:.1f} deviations",
        ),
        Verdict(
            "(b) the ladder rises",
            levels == sorted(levels),
            f"{' < '.join(f'{level:.1f}' for level in levels)}, best {', '.join(rungs)}",
        ),
        Verdict(
            "(c) the deviation is small",
            deviation <= LARGEST_DEVIATION,
            f"{deviation:.1f} points over the seeds, pooled over {len(normalizers)} normalizers",
        ),
        Verdict(
            "(e) known layers pass",
            not failed,
            f"rejected: {', '.join(failed) or 'none'}",
        ),
    ]
    if "reference" in seconds:
        text = f"{seconds['here']:.2f} s of device time against {seconds['reference']:.2f} s"
        found.insert(3, Verdict("(d) it is cheap", seconds["here"] <= seconds["reference"], text))
    return found


# -- Tables


def ladder_table(measured: Mapping[str, Any]) -> Table:
    """A row for each layer: mean accuracies by anchor, and their mean with its deviation over the seeds."""
    anchors = list(measured["layers"][0]["accuracies"])
    steps = " / ".join(map(str, measured["steps"]))
    table = Table("layer", "rung", *anchors, "mean", title=f"accuracy in % after {steps} steps")
    for row in measured["layers"]:
        by_anchor = (100 * np.mean(row["accuracies"][name], axis=0) for name in anchors)
        mean = percent_text(np.mean(row["replicas"]), sample_deviation(row["replicas"]))
        cells = [" / ".join(f"{value:.0f}" for value in values) for values in by_anchor]
        table.add_row(row["layer"], row["rung"], *cells, mean)
    return table


def stability_table(measured: Mapping[str, Any]) -> Table:
    """The largest gradient norms by anchor, and whether the layer passes all tests with the first seed."""
    tests = measured["config"]["rejection"]
    threshold = f"{100 * measured['threshold']:.0f} %"
    title = (
        f"largest gradient norm in {tests['stability_steps']} steps of {tests['stability_step_size']:g}; "
        f"below {tests['stability_norm']:.0e} and {threshold} on all anchors passes"
    )
    table = Table("layer", *measured["layers"][0]["norms"], "passes", title=title)
    for row in measured["layers"]:
        norms = (f"{norm:.1e}" for norm in row["norms"].values())
        table.add_row(row["layer"], *norms, "yes" if row["passes"] else "NO")
    return table


def verdict_table(measured: Mapping[str, Any]) -> Table:
    """The verdicts with their evidence."""
    table = Table("verdict", "", "evidence", title="is the proxy task useful?")
    for verdict in measured["verdicts"]:
        table.add_row(verdict["name"], "passed" if verdict["passed"] else "FAILED", verdict["evidence"])
    return table


if __name__ == "__main__":
    define_flags()
    flags.run(main, example="experiments/configs/search_mnist5k.py", holds="workdir")
