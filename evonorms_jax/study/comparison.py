"""The comparison of search methods: searches, re-ranking, new trainings of the chosen layers, one table."""

from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.history import Record
from evonorms_jax.evolution.records import Search, layer_title, mean_score
from evonorms_jax.models import get_anchor
from evonorms_jax.packages import require_matplotlib
from evonorms_jax.runs import provenance
from evonorms_jax.runs.config_checks import nearest
from evonorms_jax.runs.files import absolute
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.runs.workdir import CONFIG, hold_folder
from evonorms_jax.search_space import KNOWN, Graph
from evonorms_jax.search_space.encoding import encode, instruction_set
from evonorms_jax.search_space.simplify import readable
from evonorms_jax.study import cells
from evonorms_jax.study.arms import run_searches
from evonorms_jax.study.comparison_table import COSTS, PARTS, make_table
from evonorms_jax.study.full_training import TRAINERS
from evonorms_jax.study.methods import NAME, Run, apply_method, chosen_methods, rises, spent
from evonorms_jax.study.proxy_training import ProxyTraining, key, make_cells
from evonorms_jax.study.table import Json, publish, summarize
from evonorms_jax.training.optimizer import make_schedule

#: Baselines whose accuracy in the searches is a line in the figure.
REFERENCES = ("bn_relu", "evonorm_b0")
_METRICS = {part: TRAINERS["classification"].metrics[f"{part}.accuracy"] for part in ("validation", "test")}
#: Mean and deviation over the fresh seeds by the `key` of a layer.
Ranking = dict[str, Json]


def run(config: ConfigDict, workdir: epath.PathLike) -> None:
    """Runs the searches, trains their best layers and the baselines anew, and writes and prints the table.

    Args:
      config: config of the comparison, see `experiments/configs/compare_mnist5k.py`.
      workdir: folder of the work directories of the searches and of the trainings.

    Raises:
      ValueError: if a setting is wrong, or a work directory belongs to another comparison.
      KeyboardInterrupt: Ctrl-C or SIGTERM came, and finished work is saved.
    """
    # The order of a resume. Each step leaves out the work that is on disk.
    # 1. Check the settings.
    # 2. Run the searches, seed by seed.
    # 3. Train the finalists of each method and seed with fresh seeds, and choose the best one.
    # 4. Train the chosen layers and the baselines with other fresh seeds, and test them.
    # 5. Write results, table and figure.
    require_matplotlib()
    from evonorms_jax.study import figures

    workdir = absolute(workdir)
    if (workdir / CONFIG).exists():
        raise UserError(f"{workdir} is the work directory of a single run: choose another one")
    baselines = check_settings(config)
    with hold_folder(workdir):
        rerankers = ProxyTraining(config, workdir / "reranking", "reranking")
        runner = ProxyTraining(config, workdir / "retraining")
        searches = run_searches(config, workdir)
        runs = apply_methods(config, searches)
        ranking = rerank(config, runs, rerankers)
        chosen = [best.graph for run in flatten(runs) if (best := choose(run, ranking)) is not None]
        made = make_cells(config, [*baselines.values(), *chosen])
        cells.run(runner, made)
        results = make_results(config, searches, ranking, baselines, runner, made)
        publish(workdir, NAME, results, make_table(results), figures.draw_comparison(results))


def check_settings(config: ConfigDict) -> dict[str, Graph]:
    """Checks the settings of the new trainings before the hours that the searches take.

    Returns:
      The baselines by name.

    Raises:
      ValueError: if a setting is wrong.
    """
    check_ranges(config, "comparison")
    chosen_methods(config)
    uses = {"seeds": config.seeds}
    uses |= {f"{plan}.seeds": config[plan].seeds for plan in ("reranking", "retraining")}
    taken: dict[int, str] = {}
    for name, seeds in uses.items():
        if not seeds or len(set(seeds)) < len(seeds):
            raise UserError(f"{name} must be different numbers, at least one, got {seeds}")
        if used := sorted(set(seeds) & taken.keys()):
            raise UserError(f"{name} must differ from those of {taken[used[0]]}, got {used[0]} in both")
        taken |= dict.fromkeys(seeds, name)
    held_out = config.retraining.held_out_anchor
    get_anchor(held_out)
    if held_out in config.anchors:
        raise UserError(f"retraining.held_out_anchor must differ from the anchors, got {held_out!r}")
    for plan in (config.reranking, config.retraining):
        make_schedule(
            learning_rate=config.proxy.learning_rate,
            steps=plan.steps,
            schedule=plan.schedule,
            warmup_steps=config.proxy.warmup_steps,
        )
    for name in config.known_layers:
        if name not in KNOWN:
            raise UserError(f"unknown layer {name!r} in known_layers{nearest(name, KNOWN)}")
        encode(KNOWN[name], instruction_set(config.search_space.ops))  # raises if it needs another op
    return {name: KNOWN[name] for name in config.known_layers}


# -- The layers


def apply_methods(config: ConfigDict, searches: Mapping[tuple[str, int], Search]) -> dict[str, list[Run]]:
    """The outcomes of each method for all seeds, in the order of the table."""
    limits = {"top": config.reranking.top, "device_steps": config.device_steps}
    return {
        name: [
            apply_method(name, seed, list(searches[method.search, seed].history), **limits)
            for seed in config.seeds
        ]
        for name, method in chosen_methods(config).items()
    }


def flatten(runs: Mapping[str, Sequence[Run]]) -> list[Run]:
    """The runs of all methods."""
    return [run for by_seed in runs.values() for run in by_seed]


def rerank(config: ConfigDict, runs: Mapping[str, Sequence[Run]], runner: cells.Runner) -> Ranking:
    """Trains the finalists with fresh seeds, on the anchors and with the validation images of the search."""
    contested = [run.finalists for run in flatten(runs) if len(run.finalists) > 1]
    made = make_cells(config, [record.graph for finalists in contested for record in finalists], "reranking")
    cells.run(runner, made)
    ranking = {}
    for layer, by_anchor in cells.collect(runner, made, [_METRICS["validation"]]).items():
        by_seed = zip(*(entry["by_seed"].values() for entry in by_anchor.values()), strict=True)
        ranking[layer] = summarize([float(np.mean(scores)) for scores in by_seed])
    return ranking


def choose(run: Run, ranking: Ranking) -> Record | None:
    """The finalist with the best mean over the fresh seeds, the better one in the search among equals."""
    if len(run.finalists) < 2:
        return run.finalists[0] if run.finalists else None
    return max(run.finalists, key=lambda record: ranking[key(record.graph)]["mean"])


# -- The numbers


def make_results(
    config: ConfigDict,
    searches: Mapping[tuple[str, int], Search],
    ranking: Ranking,
    baselines: Mapping[str, Graph],
    runner: cells.Runner,
    made: Sequence[cells.Cell],
) -> Json:
    """All numbers of the comparison. Making them again gives the same ones.

    Args:
      config: config of the comparison.
      searches: searches by method and seed.
      ranking: scores of the finalists with fresh seeds.
      baselines: layers to show beside those found, by name.
      runner: runner that has trained the cells.
      made: cells of all layers, chosen ones and baselines.
    """
    held_out = config.retraining.held_out_anchor
    tests = {
        layer: _test(by_anchor, held_out)
        for layer, by_anchor in cells.collect(runner, made, [_METRICS["test"]]).items()
    }
    methods = chosen_methods(config)
    by_steps = config.device_steps is not None
    return {
        "config": config.to_dict(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "date": cells.provenance(runner, made)["date"],
        "methods": [
            {"name": name, "title": methods[name].title, "of_paper": methods[name].of_paper}
            | _method_row([_run_row(run, ranking, tests, by_steps) for run in runs])
            for name, runs in apply_methods(config, searches).items()
        ],
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


def _method_row(rows: Sequence[Json]) -> Json:
    scored = [row["test"] for row in rows if row["chosen"] is not None]
    return {
        **{part: summarize([test[part]["mean"] for test in scored]) for part in PARTS},
        **{cost: float(np.mean([row[cost] for row in rows])) for cost in COSTS},
        "runs": rows,
    }


def _run_row(run: Run, ranking: Ranking, tests: Mapping[str, Json], by_steps: bool) -> Json:
    chosen = choose(run, ranking)
    finalists = [_layer(record, rank, ranking) for rank, record in enumerate(run.finalists, 1)]
    return {
        "seed": run.seed,
        "examined": len(run.examined),
        "accepted": sum(record.evaluation.outcome == "accepted" for record in run.examined),
        "device_steps": int(spent(run.examined)[-1]),
        "device_minutes": sum(record.evaluation.seconds for record in run.examined) / 60,
        "best_so_far": rises(run.examined, by_steps),
        "finalists": finalists,
        "chosen": next((row for row in finalists if chosen and row["index"] == chosen.index), None),
        "test": None if chosen is None else tests[key(chosen.graph)],
    }


def _layer(record: Record, rank: int, ranking: Ranking) -> Json:
    return {
        "index": record.index,
        "origin": record.proposal.origin,
        "equation": str(record.graph),
        "simplified": readable(record.graph),
        "graph": record.graph.to_json(),
        "outcome": record.evaluation.outcome,
        "scores": record.evaluation.scores,  # of the search
        "rank": rank,  # in the search
        "reranked": ranking.get(key(record.graph)),
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
