"""The search: propose a round, examine it, record."""

from collections.abc import Callable, Iterator, Sequence

from evonorms_jax.evolution.history import Evaluation, History, Record
from evonorms_jax.evolution.proposal import EvolutionSettings, propose
from evonorms_jax.search_space import Graph


def search(
    history: History,
    examine: Callable[[Sequence[Graph], History], Sequence[Evaluation]],
    settings: EvolutionSettings,
    *,
    seed: int,
    budget: int,
    stop_at_first: bool = False,
) -> Iterator[list[Record]]:
    """Extends the history to `budget` examined candidates and yields the new records of each round.

    A rejected candidate costs budget and no place in the population. The history may come from an earlier
    run that was stopped anywhere, within a round too: the rest is the same as if it had not been.

    Args:
      history: what was examined so far; appended to before a round is yielded.
      examine: the evaluations of the graphs of a round, in order.
      settings: see `EvolutionSettings`.
      seed: of all proposals.
      budget: number of candidates examined in the end.
      stop_at_first: ends with the first accepted candidate (method `random`).
    """
    while len(history) < budget and not (stop_at_first and history.population(1)):
        first = len(history)
        end = min(first - first % settings.round_size + settings.round_size, budget)
        proposals = [propose(history, settings, seed, index) for index in range(first, end)]
        evaluations = examine([proposal.graph for proposal in proposals], history)
        records = []
        for record in map(Record, range(first, end), proposals, evaluations):
            history.append(record)
            records.append(record)
            if stop_at_first and record.selectable:
                break
        yield records
