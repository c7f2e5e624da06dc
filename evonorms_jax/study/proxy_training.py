"""Runner of proxy trainings: the evaluator of a search trains many layers by one program per anchor.

Full training would build a program for each layer, which costs more than these short trainings. The layers
are trained anew, with seeds that no search has used. There are two plans, groups of the config: "reranking"
trains on the anchors of the search and scores on validation images, "retraining" takes a held-out anchor in
addition and scores on the test part.
"""

import itertools
import json
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.devices import release_programs
from evonorms_jax.evolution.evaluator import Evaluator
from evonorms_jax.evolution.executors import step_cost
from evonorms_jax.evolution.rejection import RejectionSettings
from evonorms_jax.evolution.session import load_images, proxy_settings
from evonorms_jax.models import get_anchor
from evonorms_jax.runs import provenance
from evonorms_jax.runs.display import Display
from evonorms_jax.runs.files import write_whole
from evonorms_jax.runs.workdir import check_config, claim_workdir
from evonorms_jax.search_space import Graph
from evonorms_jax.search_space.encoding import instruction_set
from evonorms_jax.study.cells import Cell, Runner
from evonorms_jax.study.table import Json

RETRAINED = "retrained.json"
#: The part of the data that a plan scores on.
PARTS = {"reranking": "validation", "retraining": "test"}
#: Groups of the config that a training depends on, beside its seed and its layer.
_SETTINGS = ("data", "anchors", "layer", "proxy", "executor")


def key(graph: Graph) -> str:
    """The equation of the canonical form, equal for graphs that are trained alike."""
    return str(graph.canonical)


def make_cells(config: ConfigDict, graphs: Sequence[Graph], plan: str = "retraining") -> list[Cell]:
    """Cells of all layers, anchors and fresh seeds of a plan. Layers of the same `key` share a row."""
    layers = {key(graph): graph for graph in graphs}
    return [
        Cell(layer, anchor, seed, f"{layer} with seed {seed}", graph)
        for seed, (layer, graph) in itertools.product(config[plan].seeds, layers.items())
        for anchor in _anchors(config, plan)
    ]


class ProxyTraining(Runner):
    """Runner of cells whose `training` is a `Graph`. A training covers all anchors of the config."""

    def __init__(self, config: ConfigDict, workdir: epath.Path, plan: str = "retraining"):
        """Takes the config of a comparison, the work directory of its trainings, and a key of `PARTS`.

        Raises:
          ValueError: if the work directory holds trainings with other settings, or is damaged.
        """
        self._config, self._workdir, self._plan = config, workdir, plan
        check_config(workdir, _settings(config, plan))
        self._done = _read(workdir / RETRAINED)

    def check(self, cells: Sequence[Cell]) -> None:
        """The config was checked before the searches."""

    def result(self, cell: Cell) -> Json | None:
        row = self._done.get((cell.row, cell.seed))
        return row and {PARTS[self._plan]: {"accuracy": row["scores"][cell.column]}, "date": row["date"]}

    def train(self, cells: Sequence[Cell]) -> Iterator[None]:
        steps, names = self._config[self._plan].steps, _anchors(self._config, self._plan)
        length = f"{steps} steps on each of {', '.join(names)}"
        before = len(self._done)
        with (
            claim_workdir(self._workdir, _settings(self._config, self._plan)) as workdir,
            Display(f"{self._config.name}, {self._plan}") as display,
        ):

            def show(label: str, text: str) -> None:
                rows = [(label, text), ("length", length)]
                display.update(completed=len(self._done) - before, total=len(cells), rows=rows)

            for seed, group in itertools.groupby(cells, operator.attrgetter("seed")):
                graphs = [cell.training for cell in group]
                show("preparing", f"building the programs for {len(graphs)} layers with seed {seed}")
                for rows in _train(self._config, self._plan, seed, graphs):
                    self._done |= {(row["layer"], row["seed"]): row for row in rows}
                    trainings = {"trainings": [*self._done.values()]}
                    write_whole(workdir / RETRAINED, json.dumps(trainings, indent=1) + "\n")
                    show("last ones", ", ".join(map(_describe, rows)))
                    yield


def _train(config: ConfigDict, plan: str, seed: int, graphs: Sequence[Graph]) -> Iterator[list[Json]]:
    """Trains the layers with one seed, one on each device at a time, and yields rows of the file.

    A row has the `layer` by its `key`, the `seed`, the `scores`, which are accuracies in [0, 1] by anchor, 0
    if the loss was not finite, and the `date`.
    """
    release_programs()
    evaluator = _make_evaluator(config, seed, plan)
    # Neighbors cost about the same, so no device waits long for another one.
    graphs = sorted(graphs, key=step_cost)
    size = len(evaluator.devices.devices)
    for chunk in (graphs[start : start + size] for start in range(0, len(graphs), size)):
        curves = evaluator.learning_curves(chunk, [config[plan].steps])
        now = provenance.now().isoformat(timespec="seconds")
        yield [
            {
                "layer": key(graph),
                "seed": seed,
                "scores": {anchor: accuracies[-1] for anchor, accuracies in curve.items()},
                "date": now,
            }
            for graph, curve in zip(chunk, curves, strict=True)
        ]


def _describe(row: Json) -> str:
    return f"{row['layer']}  {100 * np.mean(list(row['scores'].values())):.1f} % with seed {row['seed']}"


def _anchors(config: ConfigDict, plan: str) -> tuple[str, ...]:
    return (*config.anchors, *([config[plan].held_out_anchor] if "held_out_anchor" in config[plan] else []))


def _settings(config: ConfigDict, plan: str) -> dict[str, Any]:
    """Everything that the scores of a layer and a seed depend on."""
    fields = config.to_dict()
    trained = {name: value for name, value in fields[plan].items() if name not in ("seeds", "top")}
    return {name: fields[name] for name in _SETTINGS} | {plan: trained}


def _make_evaluator(config: ConfigDict, seed: int, plan: str) -> Evaluator:
    """The evaluator of a plan."""
    length = {"steps": config[plan].steps, "schedule": config[plan].schedule}
    return scoring_evaluator(config, _anchors(config, plan), PARTS[plan], seed, **length, replicas=1)


def scoring_evaluator(
    config: ConfigDict, anchors: Sequence[str], part: str, seed: int, *, slots: int = 1, **proxy: Any
) -> Evaluator:
    """An evaluator without rejection tests, whose accuracies are those of another part of the data.

    Args:
      config: config with the groups of a search.
      anchors: names of the networks.
      part: "validation" or "test".
      seed: base seed of weights, batches and crops.
      slots: largest number of trainings in one call of a device.
      proxy: settings that replace those of `config.proxy`.
    """
    images = load_images(config, with_test=True)
    scored = images.test if part == "test" else images.validation
    return Evaluator(
        [get_anchor(name) for name in anchors],
        images._replace(validation=scored, test=None),
        proxy_settings(config, **proxy),
        RejectionSettings(**config.rejection)._replace(enabled=False, stability_anchor=""),
        config.layer.to_dict(),
        executor=config.executor,
        slots=slots,
        seed=seed,
        instructions=instruction_set(config.search_space.ops),
    )


def _read(path: epath.Path) -> dict[tuple[str, int], Json]:
    try:
        rows = json.loads(path.read_text())["trainings"] if path.exists() else []
        return {(row["layer"], row["seed"]): row for row in rows if row["scores"] and row["date"]}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: move it away, and its trainings are done again") from None
