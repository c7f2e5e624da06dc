"""The layers of a search ranked by what full networks reach with them."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.archive import top_records
from evonorms_jax.evolution.history import Record
from evonorms_jax.evolution.records import read_search
from evonorms_jax.layers.registry import layer_file
from evonorms_jax.runs.files import absolute, write_whole
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.study.cells import Cell, networks, provenance

CANDIDATES, LAYERS, NAME = "candidates.json", "reranked_layers.json", "rerank"
Json = dict[str, Any]


def prepare(config: ConfigDict, search: str, workdir: str) -> tuple[epath.Path, list[Record]]:
    """Chooses the layers, and claims the work directory for them without keeping other processes out.

    Returns:
      The work directory, with `candidates.json`, and the layers in the order of their proxy accuracy.

    Raises:
      ValueError: if the search has accepted no layer or its directory is none, the rule is unknown, or the
        work directory belongs to other layers.
    """
    if config.choose not in ("mean", "front"):
        raise UserError(f"choose must be mean or front, got {config.choose!r}")
    check_ranges(config, "reranking")
    if config.best > config.top:
        raise UserError(f"top must be at least best, got {config.top} and {config.best}")
    found = top_records(read_search(absolute(search)).history, config.top)
    chosen = [record for record, front in found if front] if config.choose == "front" else None
    layers = chosen or [record for record, _ in found[: config.top]]
    if not layers:
        raise UserError(f"the search in {search} has accepted no layer yet")
    # A search that goes on changes its top layers: those of this work directory stay.
    settings = config.to_dict() | {"layers": [str(record.graph) for record in layers]}
    with claim_workdir(workdir, settings, alone=False) as path:
        write_whole(path / CANDIDATES, layer_file([_row(record) for record in layers]))
    return path, layers


def make_cells(config: ConfigDict, workdir: epath.Path, layers: Sequence[Record]) -> list[Cell]:
    """A training for each layer and network.

    Raises:
      ValueError: if a recipe is wrong, or has no images to score on.
    """
    cells = [
        Cell(
            row=f"candidate {record.index}",
            column=network.name,
            seed=config.seed,
            recipe=network.recipe,
            overrides=network.overrides
            | {"layer.spec": f"{workdir / CANDIDATES}#{number}", "seed": config.seed},
            workdir=workdir / "cells" / f"{record.index}-{network.name}",
        )
        for number, record in enumerate(layers)
        for network in networks(config)
    ]
    for cell in cells:
        if cell.config().data.validation_size == 0:
            raise UserError(f"{cell.column}: data.validation_size=0 leaves no images to score layers on")
    return cells


def rank(config: ConfigDict, layers: Sequence[Record], cells: Sequence[Cell]) -> Json:
    """Validation accuracies, the layers from the best to the worst by their mean."""
    rows = []
    for place, record in enumerate(layers, 1):
        mine = [cell for cell in cells if cell.row == f"candidate {record.index}"]
        scores = {cell.column: cell.accuracy("validation") for cell in mine}
        row = _row(record) | {"proxy_rank": place, "validation": scores}
        rows.append(row | {"mean": float(np.mean(list(scores.values())))})
    rows.sort(key=lambda row: -row["mean"])
    names = [network.name for network in networks(config)]
    return {"config": config.to_dict(), "networks": names, **provenance(cells), "layers": rows}


def table(results: Json) -> tuple[list[str], list[list[str]]]:
    """The titles of the columns and the cells of the rows; accuracies in %."""
    columns = results["networks"]
    header = ["layer", *columns, "mean", "proxy", "proxy rank"]
    rows = []
    for row in results["layers"]:
        figures = [row["validation"][name] for name in columns] + [row["mean"], row["mean_score"]]
        cells = [f"{100 * figure:.1f}" for figure in figures]
        rows.append([row["equation"], *cells, str(row["proxy_rank"])])
    return header, rows


def write(results: Json, workdir: epath.Path) -> None:
    """Writes `rerank.json`, `rerank.md` and `reranked_layers.json`."""
    header, rows = table(results)
    rows = [[f"`{row[0]}`", *row[1:]] for row in rows]
    lines = [header, ["---"] * len(header), *rows]
    write_whole(workdir / f"{NAME}.json", json.dumps(results, indent=1) + "\n")
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    write_whole(
        workdir / f"{NAME}.md", f"{text}\nValidation accuracy in %; the proxy's is that of the search.\n"
    )
    write_whole(workdir / LAYERS, layer_file(results["layers"][: results["config"]["best"]]))


def _row(record: Record) -> Json:
    return {
        "index": record.index,
        "equation": str(record.graph),
        "graph": record.graph.to_json(),
        "mean_score": record.mean_score,
        "scores": record.evaluation.scores,
    }
