"""The best layers of a search, ranked by the accuracy that full networks reach with them."""

from collections.abc import Sequence

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.records import ScoredLayer, read_search, top_layers
from evonorms_jax.layers.registry import layer_file
from evonorms_jax.runs.files import write_whole
from evonorms_jax.runs.lock import hold
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.study import cells
from evonorms_jax.study.cells import Cell, Runner
from evonorms_jax.study.full_training import TRAINERS, FullTraining, columns
from evonorms_jax.study.table import Json, Table, publish

CANDIDATES, LAYERS, NAME = "candidates.json", "reranked_layers.json", "rerank"
_TRAINER = TRAINERS["classification"]
_METRIC = _TRAINER.metrics["validation.accuracy"]


def run(config: ConfigDict, search: str, workdir: epath.PathLike, *, commands: bool = False) -> None:
    """Trains the cells that have no result, then writes and prints the ranking.

    Args:
      config: config of the ranking, see `experiments/configs/rerank_mnist5k.py`.
      search: work directory of the search.
      workdir: work directory of the ranking.
      commands: print the commands of the cells without a result instead.

    Raises:
      ValueError: if a setting is wrong, or the work directory belongs to another ranking.
      KeyboardInterrupt: Ctrl-C or SIGTERM came, and finished work is saved.
    """
    workdir, layers = prepare(config, search, workdir)
    runner, made = FullTraining(workdir / "cells", _TRAINER), make_cells(config, workdir, layers)
    if commands:
        runner.print_commands(made)
        return
    with hold(workdir):
        cells.run(runner, made)
        if missing := len(cells.left(runner, made)):
            raise UserError(f"{missing} trainings run in other processes: wait, and give the command again")
        results = rank(config, layers, runner, made)
        write_whole(workdir / LAYERS, layer_file(results["layers"][: config.best]))
        publish(workdir, NAME, results, make_table(results))
    print(f"the best {config.best}: {workdir / LAYERS}")


def prepare(config: ConfigDict, search: str, workdir: epath.PathLike) -> tuple[epath.Path, list[ScoredLayer]]:
    """Chooses the layers, and claims the work directory for them without keeping other processes out.

    Returns:
      The work directory, with `candidates.json`, and the layers in the order of their proxy accuracy.

    Raises:
      ValueError: if the search accepted no layer yet, its directory is no work directory of a search, the
        rule is unknown, or the work directory belongs to other layers.
    """
    if config.choose not in ("mean", "front"):
        raise UserError(f"choose must be mean or front, got {config.choose!r}")
    check_ranges(config, "reranking")
    if config.best > config.top:
        raise UserError(f"top must be at least best, got {config.top} and {config.best}")
    found = top_layers(read_search(search).history, config.top)
    layers = [layer for layer in found if layer.pareto] if config.choose == "front" else found[: config.top]
    if not layers:
        raise UserError(f"the search in {search} has accepted no layer yet")
    # A search that continues changes its top layers, but not those of this work directory.
    settings = config.to_dict() | {"layers": [str(record.graph) for record in layers]}
    with claim_workdir(workdir, settings, alone=False) as path:
        write_whole(path / CANDIDATES, layer_file([_row(record) for record in layers]))
    return path, layers


def make_cells(config: ConfigDict, workdir: epath.Path, layers: Sequence[ScoredLayer]) -> list[Cell]:
    """A cell for each layer and network.

    Raises:
      ValueError: if a recipe is wrong, or has no images to score on.
    """
    made = []
    for number, record in enumerate(layers):
        for network, recipe in columns(config).items():
            recipe = recipe.override({"layer.spec": f"{workdir / CANDIDATES}#{number}", "seed": config.seed})
            if recipe.config().data.validation_size == 0:
                raise UserError(f"{network}: data.validation_size=0 leaves no images to score layers on")
            name = f"{record.index}-{network}"
            made.append(Cell(f"candidate {record.index}", network, config.seed, name, recipe))
    return made


def rank(config: ConfigDict, layers: Sequence[ScoredLayer], runner: Runner, made: Sequence[Cell]) -> Json:
    """Validation accuracies, the layers in descending order of their mean over the networks."""
    found = cells.collect(runner, made, [_METRIC])
    rows = []
    for place, record in enumerate(layers, 1):
        entries = found[f"candidate {record.index}"]
        scores = {network: entry["by_seed"][str(config.seed)] for network, entry in entries.items()}
        mean = float(np.mean(list(scores.values())))
        rows.append(_row(record) | {"proxy_rank": place, "validation": scores, "mean": mean})
    rows.sort(key=lambda row: -row["mean"])
    provenance = cells.provenance(runner, made)
    return {"config": config.to_dict(), "networks": list(columns(config)), **provenance, "layers": rows}


def make_table(results: Json) -> Table:
    """The ranking as a table, with a rule below the best."""
    networks = results["networks"]
    rows = []
    for row in results["layers"]:
        values = [*(row["validation"][name] for name in networks), row["mean"], row["mean_score"]]
        rows.append(
            [f"`{row['equation']}`", *(f"{100 * value:.1f}" for value in values), str(row["proxy_rank"])]
        )
    notes = "Validation accuracy in %. The columns of the proxy are those of the search."
    return Table(["layer", *networks, "mean", "proxy", "proxy rank"], rows, notes, results["config"]["best"])


def _row(record: ScoredLayer) -> Json:
    return {
        "index": record.index,
        "equation": str(record.graph),
        "graph": record.graph.to_json(),
        "mean_score": record.mean_score,
        "scores": record.scores,
    }
