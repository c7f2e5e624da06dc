"""Rows, columns and cells of the tables of classification results."""

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.evolution.records import layer_title
from evonorms_jax.layers.registry import layer_file, norm_act
from evonorms_jax.runs.files import write_whole
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.search_space import Graph
from evonorms_jax.study.cells import Cell, Network, networks, provenance
from evonorms_jax.study.chosen import chosen_layers
from evonorms_jax.study.results import summarize

Json = dict[str, Any]
_LAYER_FILE = "layers.json"
_DASH = "\N{EN DASH}"
#: A row: its layer for each seed, a name or a graph.
Layers = dict[str, list[str | Graph]]


def make_layers(config: ConfigDict) -> Layers:
    """The rows: the named layers, and those that the methods of a comparison chose.

    A named layer is trained with every seed. A method has as many layers as it was run with seeds, and each
    of them is trained with one seed, so that its deviation is that of the method.

    Raises:
      ValueError: if a number is out of range, otherwise as `chosen_layers`.
    """
    check_ranges(config, "table")
    rows: Layers = {layer_title(name): [name] * len(config.seeds) for name in config.layers}
    return rows | (chosen_layers(config.comparison, len(config.seeds)) if config.comparison else {})


def describe(config: ConfigDict, layers: Layers) -> Json:
    """What the work directory belongs to: searches that go on would change the layers."""
    return config.to_dict() | {"rows": {row: [str(layer) for layer in each] for row, each in layers.items()}}


def make_cells(config: ConfigDict, workdir: epath.Path, layers: Layers) -> list[Cell]:
    """A training for each row, column and seed; layers that are no names go into a file beside them.

    Where a column differs from another only in how many images share batch statistics, a layer that has none
    has one training for both.
    """
    graphs = list({layer for each in layers.values() for layer in each if isinstance(layer, Graph)})
    graphs.sort(key=str)
    rows = [{"graph": graph.to_json(), "equation": str(graph)} for graph in graphs]
    write_whole(workdir / _LAYER_FILE, layer_file(rows))
    made = []
    for place, seed in enumerate(config.seeds):
        for row, each in layers.items():
            layer = each[place]
            spec = layer if isinstance(layer, str) else f"{workdir / _LAYER_FILE}#{graphs.index(layer)}"
            batches = config.batches or (None,)
            alike = config.workers is None and not _has_batch_statistics(layer)
            for network, batch in itertools.product(networks(config), batches):
                trained = batches[0] if alike else batch
                overrides = network.overrides | {"layer.spec": spec, "seed": seed} | _batch(config, trained)
                name = f"{row} {_column(network, trained)} {seed}"
                made.append(
                    Cell(
                        row=row,
                        column=_column(network, batch),
                        seed=seed,
                        recipe=network.recipe,
                        overrides=overrides,
                        workdir=workdir / "cells" / re.sub(r"\W+", "-", name.lower()),
                    )
                )
    return made


def _column(network: Network, batch: int | None) -> str:
    return network.name if batch is None else f"{network.name}, {batch}"


def _has_batch_statistics(layer: str | Graph) -> bool:
    """Whether moments of a layer are over the images of a batch: it keeps moving ones of them."""
    init = norm_act(layer)(use_running_average=False).init
    return "batch_stats" in jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 8, 8, 8)))


def _batch(config: ConfigDict, size: int | None) -> Mapping[str, int]:
    """Overrides that let `size` images share statistics: those of one of `workers` devices."""
    if size is None:
        return {}
    total = {} if config.workers is None else {"batch_size": config.workers * size}
    return {"statistics_batch": size, **total}


def collect(config: ConfigDict, cells: Sequence[Cell]) -> Json:
    """Mean and deviation of the test accuracy over the seeds; None of a cell that has none yet."""
    table: dict[str, dict[str, Any]] = {}
    for cell in cells:
        scores = table.setdefault(cell.row, {}).setdefault(cell.column, {})
        scores[str(cell.seed)] = cell.accuracy("test")
    rows = {
        row: {
            column: {
                "by_seed": scores,
                "summary": summarize([score for score in scores.values() if score is not None]),
            }
            for column, scores in columns.items()
        }
        for row, columns in table.items()
    }
    return {
        "config": config.to_dict(),
        "networks": [network.name for network in networks(config)],
        **provenance(cells),
        "rows": rows,
    }


def table(results: Json) -> tuple[list[str], list[list[str]]]:
    """The titles of the columns and the cells of the rows."""
    columns = list(next(iter(results["rows"].values())))
    rows = []
    for row, cells in results["rows"].items():
        rows.append([row, *(_percent(cells[column]) for column in columns)])
    return ["layer", *columns], rows


def _percent(cell: Json) -> str:
    summary = cell["summary"]
    if summary is None:
        return _DASH
    deviation = "" if summary["deviation"] is None else f" ± {100 * summary['deviation']:.1f}"
    missing = len(cell["by_seed"]) - summary["number"]
    return f"{100 * summary['mean']:.1f}{deviation}" + (f" ({missing} to come)" if missing else "")


def notes(results: Json) -> str:
    """What the numbers of the table are, in a paragraph."""
    config = results["config"]
    batches = ""
    if config["batches"]:
        batches = (
            " The number beside a network is that of the images that share batch statistics; a layer without"
            " any has one training for all of them, unless the batch differs, too."
        )
    hardware = "".join(
        f"{one['devices']} device(s) of kind {one['device']}, {one['machine']}, JAX {one['jax']}; "
        for one in results["hardware"]
    )
    title = config["name"][:1].upper() + config["name"][1:]
    return (
        f"{title}: test accuracy in %, mean ± sample standard deviation over "
        f"{len(config['seeds'])} seeds.{batches} A training whose loss is not finite counts as 0. "
        f"{hardware}{results['date'] or 'none is done'}."
    )


def write(results: Json, workdir: epath.Path, render: Callable[[Json, str], bytes]) -> list[epath.Path]:
    """Writes the table as JSON and Markdown and the figure, `render(results, kind)`, as SVG and PNG."""
    header, rows = table(results)
    lines = ["| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows]]
    paths = [workdir / f"table.{kind}" for kind in ("json", "md", "svg", "png")]
    write_whole(paths[0], json.dumps(results, indent=1) + "\n")
    write_whole(paths[1], "\n".join([*lines, "", notes(results), ""]))
    for path in paths[2:]:
        write_whole(path, render(results, path.suffix[1:]))
    return paths
