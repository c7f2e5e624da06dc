"""The comparison of search methods: searches, new trainings of the layers they chose, and one table."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.history import Record
from evonorms_jax.evolution.records import Search, layer_title, mean_score
from evonorms_jax.models import get_anchor
from evonorms_jax.report import drawing
from evonorms_jax.runs import provenance
from evonorms_jax.runs.config_checks import nearest
from evonorms_jax.runs.files import absolute
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.runs.workdir import CONFIG, hold_folder
from evonorms_jax.search_space import BASELINES, CATALOG, Graph
from evonorms_jax.study import cells
from evonorms_jax.study.full_training import TRAINERS
from evonorms_jax.study.methods import METHODS, Run, apply_method, best_so_far, run_searches
from evonorms_jax.study.proxy_training import ProxyTraining, key, make_cells
from evonorms_jax.study.table import DASH, Json, Table, hardware_text, paired_interval, publish, summarize
from evonorms_jax.training.optimizer import make_schedule

NAME = "compare_methods"
#: Baselines whose accuracy in the searches is a line in the figure.
REFERENCES = ("bn_relu", "evonorm_b0")
_METRIC = TRAINERS["classification"].metrics["test.accuracy"]
_PARTS = ("searched", "held_out")
_COSTS = ("examined", "accepted", "device_minutes")


def run(config: ConfigDict, workdir: epath.PathLike) -> None:
    """Runs the searches, trains the chosen layers and the baselines anew, and writes and prints the table.

    Args:
      config: config of the comparison, see `experiments/configs/compare_mnist5k.py`.
      workdir: folder of the work directories of the searches and of the trainings.

    Raises:
      ValueError: if a setting is wrong, or a work directory belongs to another comparison.
      KeyboardInterrupt: Ctrl-C or SIGTERM came, and finished work is saved.
    """
    figures = drawing.load("evonorms_jax.study.figures")
    workdir = absolute(workdir)
    if (workdir / CONFIG).exists():
        raise UserError(f"{workdir} is the work directory of a single run: choose another one")
    baselines = check_settings(config)
    with hold_folder(workdir):
        runner = ProxyTraining(config, workdir / "retraining")
        searches = run_searches(config, workdir)
        runs = itertools.chain.from_iterable(apply_methods(config, searches).values())
        chosen = [run.chosen.graph for run in runs if run.chosen is not None]
        made = make_cells(config, [*baselines.values(), *chosen])
        cells.run(runner, made)
        results = make_results(config, searches, baselines, runner, made)
        publish(workdir, NAME, results, make_table(results), figures.draw_comparison(results))


def check_settings(config: ConfigDict) -> dict[str, Graph]:
    """Checks the settings of the new trainings before the hours that the searches take.

    Returns:
      The baselines by name.

    Raises:
      ValueError: if a setting is wrong.
    """
    check_ranges(config, "comparison")
    retraining = config.retraining
    for name, seeds in (("seeds", config.seeds), ("retraining.seeds", retraining.seeds)):
        if not seeds or len(set(seeds)) < len(seeds):
            raise UserError(f"{name} must be different numbers, at least one, got {seeds}")
    if used := sorted(set(config.seeds) & set(retraining.seeds)):
        raise UserError(f"retraining.seeds must differ from those of the searches, got {used[0]} in both")
    held_out = retraining.held_out_anchor
    get_anchor(held_out)
    if held_out in config.anchors:
        raise UserError(f"retraining.held_out_anchor must differ from the anchors, got {held_out!r}")
    make_schedule(
        learning_rate=config.proxy.learning_rate,
        steps=retraining.steps,
        schedule=retraining.schedule,
        warmup_steps=config.proxy.warmup_steps,
    )
    known = BASELINES | CATALOG
    for name in config.known_layers:
        if name not in known:
            raise UserError(f"unknown layer {name!r} in known_layers{nearest(name, known)}")
    return {name: known[name] for name in config.known_layers}


# -- The numbers


def apply_methods(config: ConfigDict, searches: Mapping[tuple[str, int], Search]) -> dict[str, list[Run]]:
    """The outcomes of each method for all seeds, in the order of the table."""
    return {
        name: [apply_method(name, seed, list(searches[method.search, seed].history)) for seed in config.seeds]
        for name, method in METHODS.items()
    }


def make_results(
    config: ConfigDict,
    searches: Mapping[tuple[str, int], Search],
    baselines: Mapping[str, Graph],
    runner: cells.Runner,
    made: Sequence[cells.Cell],
) -> Json:
    """All numbers of the comparison. Making them again gives the same ones.

    Args:
      config: config of the comparison.
      searches: searches by method and seed.
      baselines: layers to show beside those found, by name.
      runner: runner that has trained the cells.
      made: cells of all layers, chosen ones and baselines.
    """
    held_out = config.retraining.held_out_anchor
    tests = {
        layer: _test(by_anchor, held_out)
        for layer, by_anchor in cells.collect(runner, made, [_METRIC]).items()
    }
    return {
        "config": config.to_dict(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "date": cells.provenance(runner, made)["date"],
        "methods": [_method_row(name, runs, tests) for name, runs in apply_methods(config, searches).items()],
        "known_layers": [
            {"name": name, "title": layer_title(name), "equation": str(graph), **tests[key(graph)]}
            for name, graph in baselines.items()
        ],
        "references": {name: _reference(name, searches) for name in REFERENCES},
    }


def _test(by_anchor: Mapping[str, Json], held_out: str) -> Json:
    """Accuracy over the fresh seeds: the mean over the anchors of the search, the held-out one, and all."""
    seeds = by_anchor[held_out]["by_seed"]
    by_seed = {seed: {name: entry["by_seed"][seed] for name, entry in by_anchor.items()} for seed in seeds}
    searched = [
        float(np.mean([score for name, score in scores.items() if name != held_out]))
        for scores in by_seed.values()
    ]
    return {"searched": summarize(searched), "held_out": by_anchor[held_out]["summary"], "by_seed": by_seed}


def _method_row(name: str, runs: Sequence[Run], tests: Mapping[str, Json]) -> Json:
    rows = [_run_row(run, tests) for run in runs]
    scored = [row["test"] for row in rows if row["chosen"] is not None]
    return {
        "name": name,
        "title": METHODS[name].title,
        **{part: summarize([test[part]["mean"] for test in scored]) for part in _PARTS},
        **{part: float(np.mean([row[part] for row in rows])) for part in _COSTS},
        "runs": rows,
    }


def _run_row(run: Run, tests: Mapping[str, Json]) -> Json:
    return {
        "seed": run.seed,
        "examined": len(run.examined),
        "accepted": sum(record.evaluation.outcome == "accepted" for record in run.examined),
        "device_minutes": sum(record.evaluation.seconds for record in run.examined) / 60,
        "best_so_far": rises(run.examined),
        "chosen": None if run.chosen is None else _layer(run.chosen),
        "test": None if run.chosen is None else tests[key(run.chosen.graph)],
    }


def rises(records: Sequence[Record]) -> list[tuple[int, float]]:
    """How many candidates were examined when the best mean accuracy rose, and its new value."""
    best = best_so_far(records)
    before = np.concatenate([[np.nan], best])[:-1]
    rose = np.isfinite(best) & (best != before)
    return [(place + 1, float(best[place])) for place in np.flatnonzero(rose).tolist()]


def _layer(record: Record) -> Json:
    return {
        "index": record.index,
        "origin": record.proposal.origin,
        "equation": str(record.graph),
        "graph": record.graph.to_json(),
        "outcome": record.evaluation.outcome,
        "scores": record.evaluation.scores,  # of the search
    }


def _reference(name: str, searches: Mapping[tuple[str, int], Search]) -> Json | None:
    """Validation accuracy of a baseline over the seeds of the searches that accepted it."""
    by_seed = {
        seed: mean_score(layer.scores)
        for (_, seed), search in searches.items()
        for layer in search.baselines
        if layer.title == layer_title(name) and layer.outcome == "accepted"
    }
    return summarize(list(by_seed.values()))


# -- The table


def make_table(results: Json) -> Table:
    """The table of the results, with a rule between methods and baselines."""
    held_out = results["config"]["retraining"]["held_out_anchor"]
    rows = []
    for above, row in itertools.pairwise([None, *results["methods"]]):
        costs = [DASH, DASH]
        if METHODS[row["name"]].rejection:
            costs = [f"{row['accepted']:.3g} / {row['examined']:.0f}", f"{row['device_minutes']:.1f}"]
        tests = [run["test"] for run in row["runs"] if run["test"]]
        accuracies = (_cell(row, part) for part in _PARTS)
        rows.append([row["title"], *accuracies, _gain(row, above), _lost_share(tests), *costs])
    for row in results["known_layers"]:
        accuracies = (_METRIC.text(row[part]) for part in _PARTS)
        rows.append([row["title"], *accuracies, DASH, _lost_share([row]), DASH, DASH])
    accuracies = ["search anchors, test %", f"{held_out}, test %"]
    header = ["layer", *accuracies, "minus the row above", "NaN %", "accepted / examined", "device minutes"]
    return Table(header, rows, _notes(results), section=len(results["methods"]))


def _cell(row: Json, part: str) -> str:
    """The accuracy of a method, and how many of its searches accepted a layer at all."""
    if row[part] is None:
        return f"none accepted in {row['examined']:.0f}"
    number, runs = row[part]["number"], len(row["runs"])
    return _METRIC.text(row[part]) + ("" if number == runs else f" ({number} of {runs} searches)")


def _gain(row: Json, above: Json | None) -> str:
    """The mean gain over another method on the search anchors, paired by seed, with its interval."""
    scores = [
        {run["seed"]: run["test"]["searched"]["mean"] for run in method["runs"] if run["test"]}
        for method in (row, above or row)
    ]
    seeds = sorted(set(scores[0]) & set(scores[1]))
    if above is None or not seeds:
        return DASH
    pairs = [[100 * by_seed[seed] for seed in seeds] for by_seed in scores]
    low, high = paired_interval(*pairs)
    return f"{np.mean(np.subtract(*pairs)):+.1f} ({low:+.1f} to {high:+.1f})"


def _lost_share(tests: Sequence[Json]) -> str:
    """The share of trainings whose loss was not finite, which score 0, in %."""
    scores = [s for test in tests for by_anchor in test["by_seed"].values() for s in by_anchor.values()]
    return f"{100 * scores.count(0) / len(scores):.0f}" if scores else DASH


def _notes(results: Json) -> str:
    config, retraining = results["config"], results["config"]["retraining"]
    return (
        f"{config['name'].capitalize()}: {len(config['seeds'])} searches of each kind with "
        f"{config['budget']} candidates each. Layers are trained anew for {retraining['steps']} steps with "
        f"fresh seeds ({', '.join(map(str, retraining['seeds']))}) and scored on test images that no search "
        "has seen. A training whose loss is not finite counts as 0, and NaN % is the share of those. Mean ± "
        "sample standard deviation: for a method over its searches, each the mean over the fresh seeds, and "
        "for a baseline over the fresh seeds. The gain over the row above is the mean on the search anchors, "
        "paired by seed, with its 95 % bootstrap interval, which is too narrow for a few searches. The last "
        "two columns are means over the searches. The layer of Random is the first proposal of a random "
        "search, and the layer of Random + rejection is the first that it accepts. In the figure, a thin "
        "line is one search and a thick line the mean of those that accepted any layer. "
        f"{hardware_text(results['hardware'] | results['versions'])}. {results['date'][:10]}."
    )
