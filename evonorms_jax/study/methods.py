"""The four search methods, their searches, and the layers that they chose.

There are two searches for each seed, random search and evolution, each in a work directory of its own. The
two random methods read the random search, which proposes the same graphs from the same seed. Its first
proposal is the layer of "random". The first one that it accepts is the layer of "random + rejection", with
which a search of `method="random"` ends. A seed fixes proposals, weights, batches and crops, so the searches
of a seed begin with the same random proposals, trained alike, and differ in how they continue.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.history import History, Record
from evonorms_jax.evolution.records import Search, WorkdirError, read_search
from evonorms_jax.evolution.session import run_search
from evonorms_jax.runs.files import absolute
from evonorms_jax.search_space import Graph
from evonorms_jax.study.cells import STOPPED

#: Keys of a comparison that its searches do not have.
OWN_KEYS = ("seeds", "known_layers", "retraining")
#: The searches of each seed: settings that differ from the config of the comparison, by dotted key.
SEARCHES: dict[str, dict[str, Any]] = {
    "random_search": {"method": "random_search"},
    "evolution": {"method": "evolution"},
}


class Method(NamedTuple):
    """A row of the comparison.

    Attributes:
      title: name in the table.
      search: name of the search, in `SEARCHES`, whose candidates it examines.
      examined: function that picks its part of all candidates in order.
      rejection: whether candidates must be accepted. If not, the last one examined is the layer.
    """

    title: str
    search: str
    examined: Callable[[Sequence[Record]], Sequence[Record]]
    rejection: bool = True


def _to_first_accepted(records: Sequence[Record]) -> Sequence[Record]:
    accepted = (place for place, record in enumerate(records) if record.selectable)
    return records[: next(accepted, len(records)) + 1]


#: In the paper's order, from the worst to the best. Another method is one entry here, with its search above.
METHODS: dict[str, Method] = {
    "random": Method("Random", "random_search", lambda records: records[:1], rejection=False),
    "random_rejection": Method("Random + rejection", "random_search", _to_first_accepted),
    "random_search": Method("Random search + rejection", "random_search", lambda records: records),
    "evolution": Method("Evolution", "evolution", lambda records: records),
}


class Run(NamedTuple):
    """The outcome of one method for one seed.

    Attributes:
      method: key of `METHODS`.
      seed: seed of the search.
      examined: candidates that it paid for, in order.
      chosen: candidate with the best mean accuracy, if it accepted any.
    """

    method: str
    seed: int
    examined: Sequence[Record]
    chosen: Record | None


def apply_method(name: str, seed: int, records: Sequence[Record]) -> Run:
    """The outcome of a method that reads the records of a search."""
    method = METHODS[name]
    examined = method.examined(records)
    if not method.rejection:
        return Run(name, seed, examined, examined[-1])
    ranked = History(examined).ranked()
    return Run(name, seed, examined, ranked[0] if ranked else None)


def best_so_far(records: Sequence[Record]) -> np.ndarray:
    """Best mean accuracy after each candidate, float64 `[N]`; NaN before the first is accepted."""
    scores = [record.mean_score if record.selectable else np.nan for record in records]
    return np.fmax.accumulate(np.array(scores, np.float64))


# -- The searches


def search_config(config: ConfigDict, search: str, seed: int) -> ConfigDict:
    """The config of one search."""
    fields = {key: value for key, value in config.to_dict().items() if key not in OWN_KEYS}
    made = ConfigDict(fields | {"method": search, "seed": seed, "name": f"{config.name}, seed {seed}"})
    made.update_from_flattened_dict(SEARCHES[search])
    return made


def search_dir(workdir: epath.Path, search: str, seed: int) -> epath.Path:
    """The work directory of one search, which `python -m experiments.report` reads."""
    return workdir / "searches" / f"{search}-{seed}"


def run_searches(config: ConfigDict, workdir: epath.Path) -> dict[tuple[str, int], Search]:
    """Runs all searches that are not finished, seed by seed.

    Returns:
      The contents of their work directories, by search and seed.

    Raises:
      KeyboardInterrupt: Ctrl-C or SIGTERM came, and finished work is saved.
      ValueError, DataNotFoundError: a search cannot run, see `run_search`.
    """
    searches = {}
    pairs = list(itertools.product(config.seeds, SEARCHES))
    for number, (seed, name) in enumerate(pairs, 1):
        path, settings = search_dir(workdir, name, seed), search_config(config, name, seed)
        done = _finished(path, settings)
        state = "done before" if done else f"{config.budget} candidates"
        logging.info("search %d of %d: %s with seed %d, %s", number, len(pairs), name, seed, state)
        if not done and not run_search(settings, path):
            raise KeyboardInterrupt(STOPPED)
        searches[name, seed] = read_search(path)
    return searches


def _finished(path: epath.Path, settings: ConfigDict) -> bool:
    """Whether this search is finished. If not, `run_search` resumes it or reports its damage."""
    try:
        search = read_search(path)
    except WorkdirError:
        return False
    return search.finished and search.config == json.loads(json.dumps(settings.to_dict()))


# -- The layers that the methods chose


def chosen_layers(source: str, count: int) -> dict[str, list[Graph]]:
    """The layers of every method, by its title.

    Args:
      source: work directory of `experiments.compare_methods`, or the compare_methods.json that it writes.
      count: number of layers of each method, one for each seed from 0 on.

    Raises:
      ValueError: if a search is missing or not finished, a method accepted no layer, there are too few
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
                raise UserError(f"the search in {place} is not finished; compare_methods resumes it")
            run = apply_method(name, seed, list(search.history))
            if run.chosen is None:
                raise UserError(f"{folder}: {method.title} with seed {seed} accepted no layer")
            rows[method.title].append(run.chosen.graph)
    return rows


def _of_results(path: epath.Path, count: int) -> dict[str, list[Graph]]:
    rows = {}
    try:
        for method in json.loads(path.read_text())["methods"]:
            chosen = [run["chosen"] for run in method["runs"]][:count]
            rows[method["title"]] = [Graph.from_json(layer["graph"]) for layer in chosen if layer is not None]
    except OSError as error:
        raise UserError(f"cannot read the comparison {path}: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged, or was not written by compare_methods") from None
    for title, layers in rows.items():
        if len(layers) < count:
            raise UserError(f"{path} has {len(layers)} layers that {title} accepted, for {count} seeds")
    return rows
