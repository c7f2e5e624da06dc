"""From history, seed and index to the next graph: population, selection, mutation, random injection.

Source: arXiv 2004.02967, section 3.4. The configs give each number with its source.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.history import History, Proposal, Record
from evonorms_jax.evolution.selection import COST_AWARE, SELECTIONS, with_cost
from evonorms_jax.evolution.survival import SURVIVALS
from evonorms_jax.runs.config_checks import nearest
from evonorms_jax.search_space import MUTATIONS, OPS, Graph, random_graph
from evonorms_jax.search_space.encoding import CAPACITY


class EvolutionSettings(NamedTuple):
    """The keys of `config.evolution` and `config.search_space`, and whether candidates are selected at all.

    Attributes:
      select: False proposes random graphs only.
      population_size: largest population.
      initial_population: size of the population below which every proposal is random.
      survival: a key of `SURVIVALS`; the rule that forms the population.
      selection: a key of `SELECTIONS`; the rule that picks a parent from the population.
      tournament_fraction: share of the population in a tournament.
      mutation: a key of `MUTATIONS`; what a mutation draws anew.
      mutations: number of mutations in a row from parent to child.
      redraw: whether a child mutates further until its canonical graph differs from the parent's.
      random_probability: probability that a new random graph replaces the child.
      round_size: number of proposals made from one state of the history, to be evaluated in parallel.
      num_nodes: number of intermediate nodes of random graphs.
      ops: names of the ops that random graphs and mutations draw from, uniformly.
      seed_layers: graphs proposed first, if candidates are selected.
    """

    select: bool
    population_size: int
    initial_population: int
    survival: str
    selection: str
    tournament_fraction: float
    mutation: str
    mutations: int
    redraw: bool
    random_probability: float
    round_size: int
    num_nodes: int
    ops: tuple[str, ...]
    seed_layers: tuple[Graph, ...] = ()


def propose_round(
    history: History, settings: EvolutionSettings, seed: int, indices: Sequence[int]
) -> list[Proposal]:
    """The proposals of some indices of one round, each a function of the history, the seed and its index.

    Only records from before the round count. So the proposals can be evaluated in any order and on any number
    of devices, and a search stopped within a round resumes with the same proposals.
    """
    start = round_start(indices[0], settings.round_size)
    places = _survivors(history, settings, start) if settings.select else np.arange(0)
    scores = history.scores(start)[places]
    if settings.selection in COST_AWARE:
        scores = with_cost(scores, [history.selectable_at(int(place)).graph for place in places])

    def parent(row: int) -> Record:
        return history.selectable_at(int(places[row]))

    return [_propose(parent, scores, settings, seed, index) for index in indices]


def round_start(index: int, round_size: int) -> int:
    """The first index of the round of an index."""
    return index - index % round_size


def population(history: History, settings: EvolutionSettings, before: int | None = None) -> list[Record]:
    """The survivors among the selectable records with an index below `before`, oldest first."""
    return [history.selectable_at(int(place)) for place in _survivors(history, settings, before)]


def _survivors(history: History, settings: EvolutionSettings, before: int | None) -> np.ndarray:
    """Places of the survivors among the selectable records, ascending."""
    return SURVIVALS[settings.survival](history.scores(before), settings.population_size)


def _propose(
    parent_at: Callable[[int], Record], scores: np.ndarray, settings: EvolutionSettings, seed: int, index: int
) -> Proposal:
    if settings.select and index < len(settings.seed_layers):
        return Proposal(settings.seed_layers[index], "seed")
    rng = np.random.default_rng(np.random.SeedSequence([seed, index, 1]))
    evolves = settings.select and len(scores) >= max(1, settings.initial_population)
    if not evolves or rng.random() < settings.random_probability:
        # Random graphs have a stream of their own. So all searches with a seed share them, whatever their
        # methods and settings, and whenever their evolutions begin.
        rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
        return Proposal(random_graph(rng, settings.num_nodes, settings.ops), "random")
    parent = parent_at(SELECTIONS[settings.selection](rng, scores, settings))
    return Proposal(_mutated(rng, parent.graph, settings), "mutation", (parent.index,))


def _mutated(rng: np.random.Generator, parent: Graph, settings: EvolutionSettings) -> Graph:
    """A child of the parent; with `redraw` it mutates until it computes something else.

    Dead nodes drift on the way, so that the children of one parent have different ones to use. Source: the
    mutation "single" of Goldman and Punch, 2013.
    """
    child = parent
    for _ in range(_MOST_DRAWS if settings.redraw else 1):
        for _ in range(settings.mutations):
            child = MUTATIONS[settings.mutation](rng, child, settings.ops)
        if child.canonical != parent.canonical:
            break
    return child


_MOST_DRAWS = 100  # a space of one op and one node may have no other graph


# -- Checks


def check_settings(settings: EvolutionSettings) -> None:
    """Raises ValueError, in one line, at the first setting that no search can use."""
    _check_name("evolution.selection", settings.selection, SELECTIONS)
    _check_name("evolution.survival", settings.survival, SURVIVALS)
    _check_name("evolution.mutation", settings.mutation, MUTATIONS)
    if not 1 <= settings.num_nodes <= CAPACITY:
        raise UserError(
            f"search_space.num_nodes must be from 1 to {CAPACITY}, the capacity of the universal program "
            f"(search_space/encoding.py), got {settings.num_nodes}"
        )
    ops = settings.ops
    for op in ops:
        _check_name("op in search_space.ops", op, OPS)
    if not ops or len(set(ops)) < len(ops):
        raise UserError(
            f"search_space.ops must name at least one op, each once, got {', '.join(ops) or 'none'}"
        )


def fit(graph: Graph, name: str, settings: EvolutionSettings) -> Graph:
    """The seed layer as a genotype of the search space: filled up with dead nodes, or rid of them.

    Raises:
      ValueError: if the layer called `name` has too many live nodes, or uses an op outside the space.
    """
    live = graph.canonical.nodes
    if len(live) > settings.num_nodes:
        raise UserError(
            f"evolution.seed_layers: {name} has {len(live)} live nodes, search_space.num_nodes is "
            f"{settings.num_nodes}"
        )
    if foreign := [node.op for node in live if node.op not in settings.ops]:
        raise UserError(f"evolution.seed_layers: {name} uses {foreign[0]}, absent from search_space.ops")
    if len(graph.nodes) == settings.num_nodes:
        return graph
    return Graph.parse(str(graph), settings.num_nodes)


def _check_name(key: str, name: str, known: Mapping[str, Any] | Sequence[str]) -> None:
    if name not in known:
        hint = nearest(str(name), known) or f"; known: {', '.join(known)}"
        raise UserError(f"unknown {key} {name!r}{hint}")
