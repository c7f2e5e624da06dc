"""Layers trained once more, longer, with seeds that no search has used, and scored on the test part."""

import datetime
import difflib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

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
from evonorms_jax.runs.display import Display
from evonorms_jax.runs.files import write_whole
from evonorms_jax.runs.interrupt import stop_requested
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.runs.workdir import check_config, claim_workdir
from evonorms_jax.search_space import BASELINES, CATALOG, Graph
from evonorms_jax.study.methods import STOPPED
from evonorms_jax.training.optimizer import make_schedule

RETRAINED = "retrained.json"
#: Settings that a training depends on; its seed and its layer are beside its scores.
_SETTINGS = ("data", "anchors", "layer", "proxy", "executor")


class Trained(NamedTuple):
    """One layer trained with one seed.

    Attributes:
      layer: its `key`.
      seed: of weights, batches and crops.
      scores: test accuracy in [0, 1] by anchor; 0 if the loss was not finite.
      date: when, ISO 8601.
    """

    layer: str
    seed: int
    scores: dict[str, float]
    date: str


def key(graph: Graph) -> str:
    """The same for graphs that are trained alike: the equation of the canonical form."""
    return str(graph.canonical)


def known_layers(names: Iterable[str]) -> dict[str, Graph]:
    """Layers of the search space by name; ValueError, with the nearest name, if there is no such."""
    known = BASELINES | CATALOG
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise UserError(f"unknown layer {name!r} in known_layers; did you mean {near!r}?")
    return {name: known[name] for name in names}


def check_settings(config: ConfigDict, workdir: epath.Path) -> None:
    """Checks what is asked for after the searches, before the hours that they take.

    Raises:
      ValueError: if a setting is wrong, or `workdir` holds trainings with other settings.
    """
    check_ranges(config, "comparison")
    retraining = config.retraining
    for name, seeds in (("seeds", config.seeds), ("retraining.seeds", retraining.seeds)):
        if not seeds or len(set(seeds)) < len(seeds):
            raise UserError(f"{name} must be different numbers, at least one, got {seeds}")
    if used := sorted(set(config.seeds) & set(retraining.seeds)):
        raise UserError(f"retraining.seeds must be none of those of the searches, got {used[0]} in both")
    get_anchor(retraining.held_out_anchor)
    if retraining.held_out_anchor in config.anchors:
        raise UserError(
            f"retraining.held_out_anchor must be none of the anchors, got {retraining.held_out_anchor!r}"
        )
    make_schedule(
        learning_rate=config.proxy.learning_rate,
        steps=retraining.steps,
        schedule=retraining.schedule,
        warmup_steps=config.proxy.warmup_steps,
    )
    known_layers(config.known_layers)
    check_config(workdir, _settings(config))


def retrain(config: ConfigDict, workdir: epath.Path, graphs: Sequence[Graph]) -> list[Trained]:
    """Trains every layer with every seed, on the anchors of the search and the one held out.

    Each training is saved as soon as it is done, and none is done twice.

    Args:
      config: of the comparison.
      workdir: of the trainings, claimed for what of the config they depend on.
      graphs: layers; those with the same key are trained once.

    Raises:
      KeyboardInterrupt: if Ctrl-C or SIGTERM stopped it.
      ValueError: if the work directory holds trainings with other settings, or is damaged.
      WorkdirInUseError: if another process holds it.
    """
    with claim_workdir(workdir, _settings(config)) as path:
        return _retrain(config, path / RETRAINED, graphs)


def _retrain(config: ConfigDict, path: epath.Path, graphs: Sequence[Graph]) -> list[Trained]:
    """`retrain` with its file."""
    done = {(row.layer, row.seed): row for row in _read(path)}
    layers = {key(graph): graph for graph in graphs}
    wanted = list(itertools.product(layers, config.retraining.seeds))
    length = f"{config.retraining.steps} steps on each of {', '.join(_anchors(config))}"
    with stop_requested() as stopping, Display(f"{config.name}, trained again") as display:

        def show(label: str, text: str) -> None:
            rows = [(label, text), ("length", length)]
            display.update(completed=sum(pair in done for pair in wanted), total=len(wanted), rows=rows)

        for seed in config.retraining.seeds:
            missing = [graph for layer, graph in layers.items() if (layer, seed) not in done]
            if missing:
                show("preparing", f"building the programs for {len(missing)} layers with seed {seed}")
            for rows in _train(config, seed, missing):
                done |= {(row.layer, row.seed): row for row in rows}
                trainings = [row._asdict() for row in done.values()]
                write_whole(path, json.dumps({"trainings": trainings}, indent=1) + "\n")
                show("last ones", ", ".join(_describe(row) for row in rows))
                if stopping():
                    raise KeyboardInterrupt(STOPPED)
    return [done[pair] for pair in wanted]


def _train(config: ConfigDict, seed: int, graphs: Sequence[Graph]) -> Iterator[list[Trained]]:
    """Trains the layers with one seed, and yields as many at a time as there are devices."""
    if not graphs:
        return
    release_programs()
    evaluator = _make_evaluator(config, seed)
    # Neighbours cost about the same, so no device waits long for another one.
    graphs = sorted(graphs, key=step_cost)
    size = len(evaluator.devices.devices)
    for chunk in (graphs[start : start + size] for start in range(0, len(graphs), size)):
        curves = evaluator.learning_curves(chunk, [config.retraining.steps])
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        yield [
            Trained(key(graph), seed, {anchor: accuracies[-1] for anchor, accuracies in curve.items()}, now)
            for graph, curve in zip(chunk, curves, strict=True)
        ]


def _describe(row: Trained) -> str:
    return f"{row.layer}  {100 * np.mean(list(row.scores.values())):.1f} % with seed {row.seed}"


def _anchors(config: ConfigDict) -> tuple[str, ...]:
    return (*config.anchors, config.retraining.held_out_anchor)


def _settings(config: ConfigDict) -> dict[str, Any]:
    """All that the scores of a layer and a seed depend on."""
    fields = config.to_dict()
    retraining = {name: value for name, value in fields["retraining"].items() if name != "seeds"}
    return {name: fields[name] for name in _SETTINGS} | {"retraining": retraining}


def _make_evaluator(config: ConfigDict, seed: int) -> Evaluator:
    """Trains without tests; what it takes for validation images is the test part."""
    images = load_images(config, with_test=True)
    proxy = proxy_settings(
        config, steps=config.retraining.steps, schedule=config.retraining.schedule, replicas=1
    )
    tests = RejectionSettings(**config.rejection)._replace(enabled=False, stability_anchor="")
    return Evaluator(
        [get_anchor(name) for name in _anchors(config)],
        images._replace(validation=images.test, test=None),
        proxy,
        tests,
        config.layer.to_dict(),
        executor=config.executor,
        slots=1,
        seed=seed,
    )


def _read(path: epath.Path) -> list[Trained]:
    try:
        rows: list[Mapping[str, Any]] = json.loads(path.read_text())["trainings"] if path.exists() else []
        return [Trained(**row) for row in rows]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is damaged: move it away, and its trainings are done again") from None
