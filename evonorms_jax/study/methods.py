"""The searches of a comparison, each in a work directory of its own, and what every method makes of them.

There are two searches for each seed: random search and evolution. The two random methods need none of their
own, since random search proposes the same graphs from the same seed: its first proposal is the layer of
"random", and the first that it accepts is that of "random + rejection", which is what a search with
`method="random"` ends with. A seed is one of proposals, weights, batches and crops: searches with the same
one train alike and begin with the same random proposals, so what differs is how they go on.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.evolution.history import History, Record
from evonorms_jax.evolution.records import Search, WorkdirError, read_search
from evonorms_jax.evolution.session import run_search

#: Keys of a comparison that are none of a search.
OWN_KEYS = ("seeds", "known_layers", "retraining")
SEARCHES = ("random_search", "evolution")
STOPPED = "stopped, all that was done is saved; the same command goes on"


class Method(NamedTuple):
    """A row of the comparison.

    Attributes:
      title: its name for people.
      search: of `SEARCHES`: whose candidates it looks at.
      examined: which of them, of all in order.
      rejection: whether candidates must be accepted; if not, the last one examined is the layer.
    """

    title: str
    search: str
    examined: Callable[[Sequence[Record]], Sequence[Record]]
    rejection: bool = True


def _all(records: Sequence[Record]) -> Sequence[Record]:
    return records


def _first(records: Sequence[Record]) -> Sequence[Record]:
    return records[:1]


def _to_first_accepted(records: Sequence[Record]) -> Sequence[Record]:
    accepted = (place for place, record in enumerate(records) if record.selectable)
    return records[: next(accepted, len(records)) + 1]


#: In the paper's order, from the worst to the best.
METHODS: dict[str, Method] = {
    "random": Method("Random", "random_search", _first, rejection=False),
    "random_rejection": Method("Random + rejection", "random_search", _to_first_accepted),
    "random_search": Method("Random search + rejection", "random_search", _all),
    "evolution": Method("Evolution", "evolution", _all),
}


class Run(NamedTuple):
    """What one method made of one seed.

    Attributes:
      method: of `METHODS`.
      seed: of the search.
      examined: the candidates it paid for, in order.
      chosen: the one with the best mean accuracy; None if none was accepted.
    """

    method: str
    seed: int
    examined: Sequence[Record]
    chosen: Record | None


def apply_method(name: str, seed: int, records: Sequence[Record]) -> Run:
    """What the method makes of the records of its search."""
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


def search_config(config: ConfigDict, method: str, seed: int) -> ConfigDict:
    """The config of one search."""
    fields = {key: value for key, value in config.to_dict().items() if key not in OWN_KEYS}
    return ConfigDict(fields | {"method": method, "seed": seed, "name": f"{config.name}, seed {seed}"})


def search_dir(workdir: epath.Path, method: str, seed: int) -> epath.Path:
    """The work directory of one search; `python -m experiments.report` makes a report of it."""
    return workdir / "searches" / f"{method}-{seed}"


def run_searches(config: ConfigDict, workdir: epath.Path) -> dict[tuple[str, int], Search]:
    """Runs all searches that are not done yet, seed by seed.

    Returns:
      What is in their work directories, by method and seed.

    Raises:
      KeyboardInterrupt: if Ctrl-C or SIGTERM stopped one of them.
      ValueError, DataNotFoundError: as `run_search`.
    """
    searches = {}
    pairs = list(itertools.product(config.seeds, SEARCHES))
    for number, (seed, method) in enumerate(pairs, 1):
        path, settings = search_dir(workdir, method, seed), search_config(config, method, seed)
        done = _finished(path, settings)
        state = "done before" if done else f"{config.budget} candidates"
        logging.info("search %d of %d: %s with seed %d, %s", number, len(pairs), method, seed, state)
        if not done and not run_search(settings, path):
            raise KeyboardInterrupt(STOPPED)
        searches[method, seed] = read_search(path)
    return searches


def _finished(path: epath.Path, settings: ConfigDict) -> bool:
    """Whether this search is done; if something is wrong with it, `run_search` mends it or says so."""
    try:
        search = read_search(path)
    except WorkdirError:
        return False
    return search.finished and search.config == json.loads(json.dumps(settings.to_dict()))
