"""The numbers of a comparison as one JSON object."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import evonorms_jax
from evonorms_jax.evolution.history import Record
from evonorms_jax.evolution.records import Search, layer_title, mean_score
from evonorms_jax.search_space import Graph
from evonorms_jax.study.methods import METHODS, Run, apply_method, best_so_far
from evonorms_jax.study.retraining import Trained, key

#: Layers whose accuracy in the searches is a line in the figure.
REFERENCES = ("bn_relu", "evonorm_b0")
Json = dict[str, Any]
_COSTS = ("examined", "accepted", "device_minutes")


def summarize(values: Sequence[float]) -> Json | None:
    """Mean, sample standard deviation (None of a single value) and number of the values; None of none."""
    if not values:
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation, "number": len(values)}


def apply_methods(config: ConfigDict, searches: Mapping[tuple[str, int], Search]) -> list[Run]:
    """Every method with every seed, in the order of the table."""
    return [
        apply_method(name, seed, list(searches[method.search, seed].history))
        for name, method in METHODS.items()
        for seed in config.seeds
    ]


def make_results(
    config: ConfigDict,
    searches: Mapping[tuple[str, int], Search],
    known: Mapping[str, Graph],
    trainings: Sequence[Trained],
) -> Json:
    """All numbers of the comparison; the same again if nothing was trained in between.

    Args:
      config: of the comparison.
      searches: by method and seed.
      known: layers to show beside those found.
      trainings: of all layers, chosen and known, with all fresh seeds.
    """
    runs = apply_methods(config, searches)
    held_out = config.retraining.held_out_anchor
    return {
        "config": config.to_dict(),
        "versions": {"evonorms_jax": evonorms_jax.__version__, "jax": jax.__version__},
        "hardware": _hardware(),
        "date": max(row.date for row in trainings),
        "methods": [
            _method_row(name, [run for run in runs if run.method == name], trainings, held_out)
            for name in METHODS
        ],
        "known_layers": [_known_row(name, graph, trainings, held_out) for name, graph in known.items()],
        "references": {name: _reference(name, searches) for name in REFERENCES},
    }


def _hardware() -> Json:
    devices = jax.devices()
    return {"device": devices[0].device_kind, "devices": len(devices), "machine": platform.machine()}


def _method_row(name: str, runs: Sequence[Run], trainings: Sequence[Trained], held_out: str) -> Json:
    rows = [_run_row(run, trainings, held_out) for run in runs]
    scored = [row["test"] for row in rows if row["chosen"] is not None]
    return {
        "name": name,
        "title": METHODS[name].title,
        "searched": summarize([test["searched"]["mean"] for test in scored]),
        "held_out": summarize([test["held_out"]["mean"] for test in scored]),
        **{part: float(np.mean([row[part] for row in rows])) for part in _COSTS},
        "runs": rows,
    }


def _run_row(run: Run, trainings: Sequence[Trained], held_out: str) -> Json:
    return {
        "seed": run.seed,
        "examined": len(run.examined),
        "accepted": sum(record.evaluation.outcome == "accepted" for record in run.examined),
        "device_minutes": sum(record.evaluation.seconds for record in run.examined) / 60,
        "best_so_far": rises(run.examined),
        "chosen": None if run.chosen is None else _layer(run.chosen),
        "test": None if run.chosen is None else _test(run.chosen.graph, trainings, held_out),
    }


def rises(records: Sequence[Record]) -> list[tuple[int, float]]:
    """How many candidates were examined when the best mean accuracy rose, and to what."""
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


def _known_row(name: str, graph: Graph, trainings: Sequence[Trained], held_out: str) -> Json:
    test = _test(graph, trainings, held_out)
    return {"name": name, "title": layer_title(name), "equation": str(graph), **test}


def _test(graph: Graph, trainings: Sequence[Trained], held_out: str) -> Json:
    """Test accuracy over the fresh seeds: mean over the anchors of the search, on the other one, and all."""
    mine = [row for row in trainings if row.layer == key(graph)]
    searched = [[a for name, a in row.scores.items() if name != held_out] for row in mine]
    return {
        "searched": summarize([float(np.mean(accuracies)) for accuracies in searched]),
        "held_out": summarize([row.scores[held_out] for row in mine]),
        "by_seed": {str(row.seed): row.scores for row in mine},
    }


def _reference(name: str, searches: Mapping[tuple[str, int], Search]) -> Json | None:
    """Validation accuracy of a known layer in the searches, over their seeds; None if it was rejected."""
    by_seed = {
        seed: mean_score(layer.scores)
        for (_, seed), search in searches.items()
        for layer in search.baselines
        if layer.title == layer_title(name) and layer.outcome == "accepted"
    }
    return summarize(list(by_seed.values()))
