"""The search: propose a round, examine it, record."""

from collections.abc import Callable, Iterator, Sequence

from evonorms_jax.evolution.history import Evaluation, History, Record
from evonorms_jax.evolution.proposal import EvolutionSettings, propose_round, round_start
from evonorms_jax.search_space import Graph


def search(
    history: History,
    examine: Callable[[Sequence[Graph], History], Sequence[Evaluation]],
    settings: EvolutionSettings,
    *,
    seed: int,
    budget: int,
    device_steps: int | None = None,
    stop_at_first: bool = False,
) -> Iterator[list[Record]]:
    """Extends the history to `budget` examined candidates and yields the new records of each round.

    A rejected candidate costs budget and takes no place in the population. The history may come from an
    earlier run that was stopped anywhere, even within a round: the search continues as if it had not stopped.

    Args:
      history: candidates examined so far. A round is appended before it is yielded.
      examine: function from the graphs of a round and the history to their evaluations, in order.
      settings: see `EvolutionSettings`.
      seed: base seed of all proposals.
      budget: number of candidates in the final history.
      device_steps: steps of training and stability test after which no further round begins, None without a
        limit.
      stop_at_first: whether to end with the first accepted candidate (method `random`).
    """
    size, limits = settings.round_size, {"budget": budget, "device_steps": device_steps}
    while not is_finished(history, size, **limits) and not (stop_at_first and history.selectable()):
        first = len(history)
        end = min(round_start(first, size) + size, budget)
        proposals = propose_round(history, settings, seed, range(first, end))
        evaluations = examine([proposal.graph for proposal in proposals], history)
        records = []
        for record in map(Record, range(first, end), proposals, evaluations):
            history.append(record)
            records.append(record)
            if stop_at_first and record.selectable:
                break
        yield records


def is_finished(history: History, round_size: int, *, budget: int, device_steps: int | None = None) -> bool:
    """Whether the budget of candidates is spent, or that of steps before the current round.

    A round that was begun is completed, also after a kill in the middle of it.
    """
    paid = device_steps is not None and history.steps(round_start(len(history), round_size)) >= device_steps
    return paid or len(history) >= budget
