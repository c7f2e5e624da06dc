"""The search: propose, examine, record."""

from collections.abc import Callable, Iterator

from evonorms_jax.evolution.history import Evaluation, History, Record
from evonorms_jax.evolution.proposal import EvolutionSettings, propose
from evonorms_jax.search_space import Graph


def search(
    history: History,
    examine: Callable[[Graph, History], Evaluation],
    settings: EvolutionSettings,
    *,
    seed: int,
    budget: int,
    stop_at_first: bool = False,
) -> Iterator[Record]:
    """Extends the history to `budget` examined candidates and yields each new record.

    A rejected candidate costs budget and no place in the population. The history may come from an earlier
    run that was stopped anywhere: the rest is the same as if it had not been.

    Args:
      history: what was examined so far; appended to before a record is yielded.
      examine: the evaluation of a graph.
      settings: see `EvolutionSettings`.
      seed: of all proposals.
      budget: number of candidates examined in the end.
      stop_at_first: ends with the first accepted candidate (method `random`).
    """
    while len(history) < budget and not (stop_at_first and history.population(1)):
        index = len(history)
        proposal = propose(history, settings, seed, index)
        record = Record(index, proposal, examine(proposal.graph, history))
        history.append(record)
        yield record
