"""From history, seed and index to the next graph: tournament, Pareto front, mutation, random injection.

Source: arXiv 2004.02967, section 3.4; the numbers and their standing are in the configs.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.history import History, Proposal, Record
from evonorms_jax.search_space import Graph, mutate, random_graph


class EvolutionSettings(NamedTuple):
    """The keys of `config.evolution`, and whether there is selection at all.

    Attributes:
      select: False proposes random graphs only.
      population_size: the most recent accepted individuals that can be parents.
      initial_population: before the population holds so many, every proposal is random.
      tournament_fraction: share of the population in a tournament.
      selection: a name of `SELECTIONS`.
      mutations: mutations in a row from parent to child.
      random_probability: chance that the child is replaced by a new random graph.
      round_size: proposals made from one state of the history, so that they can be evaluated in parallel.
      seed_layers: graphs proposed first, if there is selection.
    """

    select: bool
    population_size: int
    initial_population: int
    tournament_fraction: float
    selection: str
    mutations: int
    random_probability: float
    round_size: int
    seed_layers: tuple[Graph, ...] = ()


def propose(history: History, settings: EvolutionSettings, seed: int, index: int) -> Proposal:
    """The proposal of a round that has a given index; a pure function of its arguments.

    Only records from before the round count, so it does not matter how many of the round are done, or on
    how many devices.
    """
    if settings.select and index < len(settings.seed_layers):
        return Proposal(settings.seed_layers[index], "seed")
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    round_start = index - index % settings.round_size
    population = history.population(settings.population_size, before=round_start)
    if not settings.select or len(population) < max(1, settings.initial_population):
        return Proposal(random_graph(rng), "random")
    parent = tournament(rng, population, settings.tournament_fraction, settings.selection)
    child = parent.graph
    for _ in range(settings.mutations):
        child = mutate(rng, child)
    if rng.random() < settings.random_probability:
        return Proposal(random_graph(rng), "random")
    return Proposal(child, "mutation", (parent.index,))


def tournament(
    rng: np.random.Generator, population: Sequence[Record], fraction: float, selection: str
) -> Record:
    """The winner among a random share of the population, drawn without replacement."""
    size = max(1, round(fraction * len(population)))
    members = [population[i] for i in rng.choice(len(population), size, replace=False)]
    scores = np.array([list(member.evaluation.scores.values()) for member in members])
    return members[SELECTIONS[check_selection(selection)](rng, scores)]


def pareto_front(scores: np.ndarray) -> list[int]:
    """Indices of the rows of `[N, K]` that no other row dominates, ascending.

    A row dominates another if it is at least as good everywhere and better somewhere; equal rows are all
    kept. A row that is not finite is never on the front.
    """
    scores = np.asarray(scores, np.float64)
    finite = np.isfinite(scores).all(axis=1)
    at_least = (scores[:, None] >= scores[None]).all(axis=2)
    better = (scores[:, None] > scores[None]).any(axis=2)
    dominated = (at_least & better & finite[:, None]).any(axis=0)
    return np.flatnonzero(finite & ~dominated).tolist()


def _random_of_front(rng: np.random.Generator, scores: np.ndarray) -> int:
    front = pareto_front(scores)
    return front[int(rng.integers(len(front)))]


def _best_average(rng: np.random.Generator, scores: np.ndarray) -> int:
    del rng
    return int(np.argmax(scores.mean(axis=1)))


#: How a tournament is won: `(rng, scores [N, K]) -> index`. A new rule is one function and one line here.
SELECTIONS: dict[str, Callable[[np.random.Generator, np.ndarray], int]] = {
    "pareto": _random_of_front,
    "average": _best_average,
}


def check_selection(name: str) -> str:
    """Returns the name; raises ValueError, with the nearest known one, if it is unknown."""
    if name not in SELECTIONS:
        near = difflib.get_close_matches(str(name), SELECTIONS, n=1, cutoff=0)
        raise UserError(f"unknown evolution.selection {name!r}; did you mean {near[0]!r}?")
    return name
