"""The search methods of a comparison: their searches, the part that each pays for, its best layers.

There is a search for each seed and entry of `SEARCHES`, and a row of the table for each entry of `METHODS`.
The two random methods read the random search, which proposes the same graphs from the same seed. Its first
proposal is the layer of "random". The first one that it accepts is the layer of "random + rejection", with
which a search of `method="random"` ends. A seed fixes proposals, weights, batches and crops, so the searches
of a seed begin with the same random proposals, trained alike, and differ in how they continue.

The cost of a search is counted in device steps: the training steps and the steps of the stability test of all
its candidates, over all anchors. In the universal program a step on an anchor takes about the same time for
every candidate. Steps are the same on any machine and under any load, so a comparison can be resumed and
repeated. Device seconds are reported beside them.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.history import History, Record
from evonorms_jax.evolution.records import top_layers
from evonorms_jax.runs.files import absolute
from evonorms_jax.search_space import Graph

#: Keys of a comparison that its searches do not have.
OWN_KEYS = ("seeds", "methods", "known_layers", "reranking", "retraining", "stop_rule")
NAME = "compare_methods"
_WARM = {"method": "evolution", "evolution.seed_layers": ("bn_relu", "gn_relu")}
#: The searches of each seed: settings that differ from the config of the comparison, by dotted key. The
#: random search comes first, since the others begin as it does.
SEARCHES: dict[str, dict[str, Any]] = {
    "random_search": {"method": "random_search"},
    "evolution": {"method": "evolution"},
    # These begin with BN-ReLU and GN-ReLU. A tournament of one member is a uniform draw.
    "warm_random": _WARM | {"evolution.random_probability": 1.0},
    "warm_uniform": _WARM
    | {
        "evolution.random_probability": 0.0,
        "evolution.initial_population": 1,
        "evolution.tournament_fraction": 0.0,
    },
    "warm_tournament": _WARM | {"evolution.random_probability": 0.0, "evolution.initial_population": 1},
}


class Method(NamedTuple):
    """A row of the comparison.

    Attributes:
      title: name in the table.
      search: name of the search, in `SEARCHES`, whose candidates it examines.
      examined: function that picks its part of all candidates in order.
      rejection: whether candidates must be accepted. If not, the last one examined is the layer.
      of_paper: whether it is one of the paper's four.
    """

    title: str
    search: str
    examined: Callable[[Sequence[Record]], Sequence[Record]]
    rejection: bool = True
    of_paper: bool = True


def _to_first_accepted(records: Sequence[Record]) -> Sequence[Record]:
    accepted = (place for place, record in enumerate(records) if record.selectable)
    return records[: next(accepted, len(records)) + 1]


def _all(records: Sequence[Record]) -> Sequence[Record]:
    return records


#: The paper's in its order, from the worst to the best, then those beyond the paper in the order that is
#: expected. Another method is one entry here, with its search above.
METHODS: dict[str, Method] = {
    "random": Method("Random", "random_search", lambda records: records[:1], rejection=False),
    "random_rejection": Method("Random + rejection", "random_search", _to_first_accepted),
    "random_search": Method("Random search + rejection", "random_search", _all),
    "evolution": Method("Evolution", "evolution", _all),
    "warm_random": Method("Seeded: random graphs", "warm_random", _all, of_paper=False),
    "warm_uniform": Method("Seeded: mutation of any parent", "warm_uniform", _all, of_paper=False),
    "warm_tournament": Method("Seeded: mutation of winners", "warm_tournament", _all, of_paper=False),
}


class Run(NamedTuple):
    """The outcome of one method for one seed.

    Attributes:
      method: key of `METHODS`.
      seed: seed of the search.
      examined: candidates that it paid for, in order.
      finalists: its best candidates by mean accuracy, no two alike, best first; empty if it accepted none.
    """

    method: str
    seed: int
    examined: Sequence[Record]
    finalists: list[Record]


def apply_method(
    name: str, seed: int, records: Sequence[Record], *, top: int = 1, device_steps: int | None = None
) -> Run:
    """The outcome of a method that reads the records of a search.

    Args:
      name: key of `METHODS`.
      seed: seed of the search.
      records: candidates of the search in order.
      top: largest number of finalists. Layers whose outputs agree to 1 % are one, by the best of them.
      device_steps: cost that the method may pay, None without a limit.
    """
    method = METHODS[name]
    examined = method.examined(affordable(records, device_steps))
    if not method.rejection:
        return Run(name, seed, examined, [examined[-1]])
    by_index = {record.index: record for record in examined}
    best = top_layers(History(examined), top)[:top]
    return Run(name, seed, examined, [by_index[layer.index] for layer in best])


def affordable(records: Sequence[Record], device_steps: int | None) -> Sequence[Record]:
    """The first records whose steps together are at most `device_steps`, at least one record."""
    if device_steps is None:
        return records
    return records[: max(1, int(np.searchsorted(spent(records), device_steps, side="right")))]


def spent(records: Sequence[Record]) -> np.ndarray:
    """Device steps spent after each record, int64 `[N]`."""
    return np.cumsum([record.evaluation.steps for record in records], dtype=np.int64)


def best_so_far(records: Sequence[Record]) -> np.ndarray:
    """Best mean accuracy after each candidate, float64 `[N]`; NaN before the first is accepted."""
    scores = [record.mean_score if record.selectable else np.nan for record in records]
    return np.fmax.accumulate(np.array(scores, np.float64))


def rises(records: Sequence[Record], by_steps: bool) -> list[tuple[int, float]]:
    """The cost when the best mean accuracy rose, in candidates or device steps, and its new value."""
    best = best_so_far(records)
    costs = spent(records) if by_steps else np.arange(1, len(best) + 1)
    before = np.concatenate([[np.nan], best])[:-1]
    rose = np.flatnonzero(np.isfinite(best) & (best != before))
    return [(int(costs[place]), float(best[place])) for place in rose.tolist()]


# -- The methods of a config


def chosen_methods(config: ConfigDict) -> dict[str, Method]:
    """The methods of `config.methods`, in the order of `METHODS`.

    Raises:
      ValueError: if one of them is unknown, or there is none.
    """
    for name in config.methods:
        if name not in METHODS:
            raise UserError(f"methods must be of {', '.join(METHODS)}, got {name!r}")
    if not config.methods:
        raise UserError(f"methods must name at least one of {', '.join(METHODS)}, got none")
    return {name: method for name, method in METHODS.items() if name in config.methods}


def chosen_searches(config: ConfigDict) -> list[tuple[int, str]]:
    """Seeds and names of all searches that the methods read, seed by seed."""
    needed = {method.search for method in chosen_methods(config).values()}
    return list(itertools.product(config.seeds, [name for name in SEARCHES if name in needed]))


def search_config(config: ConfigDict, search: str, seed: int) -> ConfigDict:
    """The config of one search."""
    fields = {key: value for key, value in config.to_dict().items() if key not in OWN_KEYS}
    name = f"{config.name}, {search}, seed {seed}"
    made = ConfigDict(fields | {"method": search, "seed": seed, "name": name})
    made.update_from_flattened_dict(SEARCHES[search])
    return made


# -- The layers that the methods chose


def chosen_layers(source: str, count: int) -> dict[str, list[Graph]]:
    """The layers of every method, by its title.

    Args:
      source: compare_methods.json that `experiments.compare_methods` writes, or its work directory.
      count: number of layers of each method, the first ones.

    Raises:
      ValueError: if the file is missing or damaged, or there are too few layers.
    """
    path = absolute(source)
    path = path if path.suffix == ".json" else path / f"{NAME}.json"
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
