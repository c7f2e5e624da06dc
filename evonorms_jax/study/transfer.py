"""Tables of layers x networks: how layers transfer to other networks, batches, optimizers and tasks."""

import itertools
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.records import layer_title
from evonorms_jax.layers.registry import layer_file, norm_act
from evonorms_jax.packages import require_matplotlib
from evonorms_jax.runs.files import absolute, write_whole
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.search_space import Graph
from evonorms_jax.study import cells
from evonorms_jax.study.cells import Cell, Runner
from evonorms_jax.study.full_training import TRAINERS, FullTraining, columns
from evonorms_jax.study.methods import chosen_layers
from evonorms_jax.study.table import Json, Metric, Table, describe_metrics, entry_text, hardware_text, publish

NAME, _LAYER_FILE = "table", "layers.json"
#: A row: its layer for each seed, a name or a graph.
Layers = dict[str, list[str | Graph]]
#: Keys of the config that choose how to train and read cells, and leave the cells as they are.
MAY_DIFFER = ("task", "metrics")


def run(
    config: ConfigDict, workdir: epath.PathLike, *, commands: bool = False, partial: bool = False
) -> None:
    """Trains the cells that have no result, then writes and prints the table.

    Args:
      config: config of the table, see `experiments/configs/transfer_mnist5k.py`.
      workdir: work directory of the table.
      commands: print the commands of the cells without a result instead.
      partial: train no cell, and make the table of the results so far.

    Raises:
      ValueError: if a setting is wrong, or the work directory belongs to another table.
      KeyboardInterrupt: Ctrl-C or SIGTERM came, and finished work is saved.
    """
    layers, runner = make_layers(config), make_runner(config, absolute(workdir))
    alone = not (commands or partial)
    with claim_workdir(workdir, describe(config, layers), MAY_DIFFER, alone=alone) as workdir:
        made = make_cells(config, workdir, layers)
        if commands:
            runner.print_commands(made)
            return
        require_matplotlib()
        from evonorms_jax.study import figures

        if not partial:
            cells.run(runner, made)
        results = collect(config, runner, made)
        publish(workdir, NAME, results, make_table(results), figures.draw_table(results))
    if missing := len(cells.left(runner, made)):
        print(f"{missing} trainings have no result: --commands prints them")


def make_runner(config: ConfigDict, workdir: epath.Path) -> FullTraining:
    """The runner of the config's task. An unknown task or metric raises `ValueError`."""
    if config.task not in TRAINERS:
        raise UserError(f"task must be one of {', '.join(TRAINERS)}, got {config.task!r}")
    trainer = TRAINERS[config.task]
    trainer.pick(config.metrics)
    return FullTraining(workdir / "cells", trainer)


def make_layers(config: ConfigDict) -> Layers:
    """The rows: the named layers, and those that the methods of a comparison chose.

    A named layer is trained with every seed. A method has one layer for each seed, which is trained with that
    seed alone, so that its deviation is the deviation of the method.

    Raises:
      ValueError: a number is out of its range, the methods did not choose a layer for every seed, or the
        table is empty.
    """
    check_ranges(config, "table")
    for key, filled in (("seeds", config.seeds), ("layers", config.layers or config.comparison)):
        if not filled:
            raise UserError(f"{key} must have at least one entry, got {config[key]}")
    rows: Layers = {layer_title(name): [name] * len(config.seeds) for name in config.layers}
    return rows | (chosen_layers(config.comparison, len(config.seeds)) if config.comparison else {})


def describe(config: ConfigDict, layers: Layers) -> Json:
    """The identity of the work directory: a search that continues would change the layers."""
    return config.to_dict() | {"rows": {row: [str(layer) for layer in each] for row, each in layers.items()}}


def make_cells(config: ConfigDict, workdir: epath.Path, layers: Layers) -> list[Cell]:
    """A cell for each row, column and seed. Graphs go into a layer file in the work directory.

    Where columns differ only in the number of images that share batch statistics, a layer without batch
    statistics has one training for all of them.
    """
    graphs = list({layer for each in layers.values() for layer in each if isinstance(layer, Graph)})
    graphs.sort(key=str)
    rows = [{"graph": graph.to_json(), "equation": str(graph)} for graph in graphs]
    write_whole(workdir / _LAYER_FILE, layer_file(rows))
    networks, batches = columns(config), config.batches or (None,)
    made, trainings = [], {}
    for (place, seed), (row, each) in itertools.product(enumerate(config.seeds), layers.items()):
        layer = each[place]
        spec = layer if isinstance(layer, str) else f"{workdir / _LAYER_FILE}#{graphs.index(layer)}"
        alike = config.workers is None and not _has_batch_statistics(layer)
        for (network, recipe), batch in itertools.product(networks.items(), batches):
            trained = batches[0] if alike else batch
            training = recipe.override({"layer.spec": spec, "seed": seed} | _batch(config, trained))
            name = re.sub(r"\W+", "-", f"{row} {column(network, trained)} {seed}".lower())
            if trainings.setdefault(name, training) != training:
                raise UserError(f"two trainings have the work directory {name}: rename a network or a layer")
            made.append(Cell(row, column(network, batch), seed, name, training))
    return made


def column(network: str, batch: int | None) -> str:
    """The title of a column."""
    return network if batch is None else f"{network}, {batch}"


def _has_batch_statistics(layer: str | Graph) -> bool:
    """Whether a layer takes moments over the images of a batch: it then keeps moving statistics."""
    init = norm_act(layer)(use_running_average=False).init
    return "batch_stats" in jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 8, 8, 8)))


def _batch(config: ConfigDict, size: int | None) -> dict[str, int]:
    """Overrides by which `size` images share statistics, as on each of `workers` devices."""
    if size is None:
        return {}
    total = {} if config.workers is None else {"batch_size": config.workers * size}
    return {"statistics_batch": size, **total}


def metrics_of(config: dict[str, Any]) -> list[Metric]:
    """The metrics of a table. Without a choice, as in older tables, it is the test accuracy."""
    trainer = TRAINERS[config.get("task", "classification")]
    return trainer.pick(config.get("metrics", ("test.accuracy",)))


def collect(config: ConfigDict, runner: Runner, made: Sequence[Cell]) -> Json:
    """All values and summaries of the table, and where and when they were trained."""
    fields = config.to_dict()
    return {
        "config": fields,
        "networks": list(columns(config)),
        **cells.provenance(runner, made),
        "rows": cells.collect(runner, made, metrics_of(fields)),
    }


def make_table(results: Json) -> Table:
    """The table of the results, with notes on its numbers."""
    titles = list(next(iter(results["rows"].values())))
    metrics = itertools.cycle(metrics_of(results["config"]))
    shown = list(zip(titles, metrics, strict=False))
    rows = [
        [row, *(entry_text(metric, entries[title]) for title, metric in shown)]
        for row, entries in results["rows"].items()
    ]
    return Table(["layer", *titles], rows, _notes(results))


def _notes(results: Json) -> str:
    config = results["config"]
    parts = [f"{config['name']}, {len(config['seeds'])} seeds."]
    parts += describe_metrics(metrics_of(config))
    if config["batches"]:
        parts.append("The number beside a network counts the images that share batch statistics.")
        if config["workers"] is None:
            parts.append("A layer without batch statistics has one training for all of these columns.")
    parts += [f"{hardware_text(one)}." for one in results["hardware"]]
    parts.append(f"{results['date']}." if results["date"] else "No training is finished yet.")
    return " ".join(part[:1].upper() + part[1:] for part in parts)
