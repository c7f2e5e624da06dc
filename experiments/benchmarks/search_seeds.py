"""Does a search find a layer that beats known ones, whatever its seed?

  python -m experiments.benchmarks.search_seeds --config=experiments/configs/search_mnist5k.py \\
      --workdir=runs/benchmarks/search_seeds --seeds=0,1,2,3,4 --against=bn_relu,evonorm_b0
  python -m experiments.benchmarks.search_seeds --config=experiments/configs/search_mnist5k_s.py \\
      --workdir=runs/benchmarks/search_seeds_s --against=gn_relu,frn,evonorm_s0

Runs the search of the config once for each seed, in WORKDIR/seed-0 and so on. Then it trains the layer that
each search ranked first, and the known ones, with seeds that no search has used, on the anchors and on a
network that took no part. They are scored on test images that no search has seen. A search succeeds if its
layer beats every layer of `--against` on the anchors and on the held-out network: the 95 % interval of the
mean difference, paired by seed, is above 0.

The same command resumes searches that were stopped. Writes search_seeds.json into the work directory.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags as absl_flags
from absl import logging
from etils import epath
from ml_collections import ConfigDict
from rich.table import Table

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.history import percent_text, sample_deviation
from evonorms_jax.evolution.records import layer_title, read_search
from evonorms_jax.evolution.session import run_search
from evonorms_jax.runs.config_checks import nearest
from evonorms_jax.runs.files import absolute, write_whole
from evonorms_jax.search_space import KNOWN, Graph
from evonorms_jax.search_space.encoding import encode, instruction_set
from evonorms_jax.study.proxy_training import scoring_evaluator
from evonorms_jax.study.table import paired_interval
from experiments import flags
from experiments.benchmarks import results

FLAGS = absl_flags.FLAGS
#: Layers to compare with. FRN's scale, bias and threshold are the affine outside the graph and v0.
COMPARED = KNOWN | {"frn": Graph.parse("max(x / rms_wh(x), v0)")}
_FRESH_SEED = 1000  # of the final trainings
_TIME = "seconds.json"
_PARTS = ("searched", "held_out")


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    flags.define_config()
    flags.define_cpu_devices()
    absl_flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds of the searches.")
    absl_flags.DEFINE_list("against", ["bn_relu", "evonorm_b0"], "Known layers to beat.")
    absl_flags.DEFINE_string("held_out", "mnasnet_narrow", "Network that takes no part in the searches.")
    absl_flags.DEFINE_integer("replicas", 8, "Number of fresh seeds of the final trainings.", lower_bound=2)


def main(argv):
    """Searches, trains the best layers again, prints the table, and writes the results."""
    del argv
    flags.use_cpu_devices(FLAGS.cpu_devices)
    for name in FLAGS.against:
        if name not in COMPARED:
            raise UserError(f"unknown layer {name!r} in --against{nearest(name, COMPARED)}")
        encode(COMPARED[name], instruction_set(FLAGS.config.search_space.ops))  # raises if it lacks an op
    searches = [search(FLAGS.config, FLAGS.workdir, int(seed)) for seed in FLAGS.seeds]
    measured = measure(FLAGS.config, searches, FLAGS.against, FLAGS.held_out, FLAGS.replicas)
    results.publish(FLAGS.workdir, "search_seeds.json", measured, table(measured))


# -- Measurements


def search(config: ConfigDict, workdir: str, seed: int) -> dict[str, Any]:
    """Runs or resumes the search of a seed. Returns its best layer and its cost.

    Raises:
      KeyboardInterrupt: if Ctrl-C or SIGTERM stopped it.
      UserError: if it accepted no layer.
    """
    config = config.copy_and_resolve_references()
    config.seed = seed
    folder = absolute(workdir) / f"seed-{seed}"
    started = time.monotonic()
    if not run_search(config, str(folder)):
        raise KeyboardInterrupt("stopped, all examined candidates are saved; the same command goes on")
    seconds = _add_seconds(folder, time.monotonic() - started)
    found = read_search(folder)
    ranked = [layer for layer in found.reranked if layer.index is not None]
    record = found.history[ranked[0].index] if ranked else next(iter(found.history.ranked()), None)
    if record is None:
        raise UserError(f"the search in {folder} accepted no layer")
    outcomes = [each.evaluation.outcome for each in found.history]
    return {
        "seed": seed,
        "index": record.index,
        "origin": record.proposal.origin,
        "equation": str(record.graph),
        "graph": record.graph.to_json(),
        "mean_score": record.mean_score,
        "proxy_rank": ranked[0].proxy_rank if ranked else 1,
        "reranked": ranked[0].mean if ranked else None,
        "outcomes": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "mutations_accepted": sum(each.proposal.origin == "mutation" for each in found.history.selectable()),
        "device_seconds": sum(each.evaluation.seconds for each in found.history),
        "wall_seconds": seconds,
    }


def _add_seconds(folder: epath.Path, seconds: float) -> float:
    """Adds the time of a run to that of earlier runs of the search. A run that was finished adds none."""
    path = folder / _TIME
    before = json.loads(path.read_text()) if path.exists() else 0.0
    total = before or seconds
    write_whole(path, json.dumps(total))
    return total


def measure(
    config: ConfigDict,
    searches: Sequence[Mapping[str, Any]],
    against: Sequence[str],
    held_out: str,
    count: int,
) -> dict[str, Any]:
    """The final trainings and comparisons, as a JSON object."""
    layers = {name: COMPARED[name] for name in against}
    layers |= {f"seed {row['seed']}": Graph.from_json(row["graph"]) for row in searches}
    logging.info("training %d layers with %d fresh seeds", len(layers), count)
    scores = dict(zip(layers, train(config, list(layers.values()), held_out, count), strict=True))
    rows = [{**row, **compared(scores[f"seed {row['seed']}"], scores, against)} for row in searches]
    return {
        "machine": results.machine(),
        "config": config.to_dict(),
        "held_out": held_out,
        "against": {name: {"equation": str(COMPARED[name]), **scores[name]} for name in against},
        "searches": rows,
        "successes": sum(row["succeeds"] for row in rows),
    }


def train(
    config: ConfigDict, graphs: Sequence[Graph], held_out: str, count: int
) -> list[dict[str, list[float]]]:
    """Test accuracies with each fresh seed: means over the search's anchors, and on the held-out network."""
    evaluator = scoring_evaluator(
        config, (*config.anchors, held_out), "test", _FRESH_SEED, slots=16, replicas=count
    )
    scores = []
    for curve in evaluator.replica_curves(graphs, [config.proxy.steps], range(count)):
        by_anchor = {name: values[:, -1] for name, values in curve.items()}
        searched = np.mean([by_anchor[name] for name in config.anchors], axis=0)
        scores.append({"searched": searched.tolist(), "held_out": by_anchor[held_out].tolist()})
    return scores


def compared(
    mine: Mapping[str, list[float]], scores: Mapping[str, Mapping[str, list[float]]], against: Sequence[str]
) -> dict[str, Any]:
    """The scores of a layer, the intervals of its gains over the known layers, and whether all are gains."""
    gains = {
        part: {name: paired_interval(mine[part], scores[name][part]) for name in against} for part in _PARTS
    }
    succeeds = all(low > 0 for by_layer in gains.values() for low, _ in by_layer.values())
    return {**mine, "gains": gains, "succeeds": succeeds}


# -- The table


def table(measured: Mapping[str, Any]) -> Table:
    """A row for each search and each known layer. Below a search, its gains over each of the known layers."""
    against = measured["against"]
    names = ", ".join(map(layer_title, against))
    title = f"{measured['successes']} of {len(measured['searches'])} searches beat {names}"
    shown = Table("", "layer", "anchors, %", f"{measured['held_out']}, %", "beats all", title=title)
    for row in measured["searches"]:
        time_taken = f"seed {row['seed']}, {row['wall_seconds'] / 60:.1f} min"
        beats = "yes" if row["succeeds"] else "no"
        shown.add_row(time_taken, row["equation"], *(_mean(row[part]) for part in _PARTS), beats)
        for name in against:
            shown.add_row(
                "", f"over {layer_title(name)}", *(_gain(row["gains"][part][name]) for part in _PARTS)
            )
        shown.add_section()
    for name, row in against.items():
        shown.add_row(layer_title(name), row["equation"], *(_mean(row[part]) for part in _PARTS))
    return shown


def _gain(interval: Sequence[float]) -> str:
    low, high = interval
    return f"{100 * low:+.1f} to {100 * high:+.1f}"


def _mean(values: Sequence[float]) -> str:
    return percent_text(np.mean(values), sample_deviation(values))


if __name__ == "__main__":
    define_flags()
    flags.run(main, example="experiments/configs/search_mnist5k.py", holds="workdir")
