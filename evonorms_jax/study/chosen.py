"""The layers that the methods of a comparison chose: from its searches, or from the numbers it wrote."""

import json

from etils import epath

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.records import read_search
from evonorms_jax.runs.files import absolute
from evonorms_jax.search_space import Graph
from evonorms_jax.study.methods import METHODS, apply_method, search_dir


def chosen_layers(source: str, count: int) -> dict[str, list[Graph]]:
    """The layers of every method, by its title.

    Args:
      source: a folder with the work directory of a search in searches/random_search-SEED and
        searches/evolution-SEED for each seed from 0 on, as `experiments.compare_methods` lays them out, or
        the compare_methods.json that it writes.
      count: layers of each method: those of as many seeds.

    Raises:
      ValueError: if a search is not there or not finished, a method accepted no layer, there are too few
        seeds, or the file is missing or damaged.
    """
    path = absolute(source)
    return _of_results(path, count) if path.suffix == ".json" else _of_searches(path, count)


def _of_searches(folder: epath.Path, count: int) -> dict[str, list[Graph]]:
    rows = {}
    for name, method in METHODS.items():
        rows[method.title] = []
        for seed in range(count):
            place = search_dir(folder, method.search, seed)
            search = read_search(place)
            if not search.finished:
                raise UserError(f"the search in {place} is not finished; compare_methods goes on with it")
            run = apply_method(name, seed, list(search.history))
            if run.chosen is None:
                raise UserError(f"{folder}: {method.title} with seed {seed} accepted no layer")
            rows[method.title].append(run.chosen.graph)
    return rows


def _of_results(path: epath.Path, count: int) -> dict[str, list[Graph]]:
    try:
        results = json.loads(path.read_text())
        chosen = {
            method["title"]: [run["chosen"] for run in method["runs"]][:count]
            for method in results["methods"]
        }
        rows = {
            title: [Graph.from_json(layer["graph"]) for layer in layers if layer is not None]
            for title, layers in chosen.items()
        }
    except OSError as error:
        raise UserError(f"cannot read the comparison {path}: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged, or was not written by compare_methods") from None
    for title, layers in rows.items():
        if len(layers) < count:
            raise UserError(f"{path} has {len(layers)} layers that {title} accepted, for {count} seeds")
    return rows
