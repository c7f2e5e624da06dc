"""Runs the searches of a comparison, seed by seed.

The searches of a seed share one evaluator, and so its programs. They share results, too: a search that has
proposed the same graphs as the random search so far takes over their evaluations, which would be the same.
Each search still pays for them in its own account of device steps.
"""

import json
from collections.abc import Callable, Sequence

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.evolution import session
from evonorms_jax.evolution.devices import release_programs
from evonorms_jax.evolution.evaluator import Evaluator
from evonorms_jax.evolution.history import Evaluation, History, Record
from evonorms_jax.evolution.recorder import Recorder
from evonorms_jax.evolution.records import Search, WorkdirError, read_search
from evonorms_jax.evolution.search import search
from evonorms_jax.runs.hosts import Hosts
from evonorms_jax.runs.interrupt import stop_requested
from evonorms_jax.search_space import Graph
from evonorms_jax.study.cells import STOPPED
from evonorms_jax.study.methods import chosen_searches, search_config


def search_dir(workdir: epath.Path, search: str, seed: int) -> epath.Path:
    """The work directory of one search, which `python -m experiments.report` reads."""
    return workdir / "searches" / f"{search}-{seed}"


def run_searches(config: ConfigDict, workdir: epath.Path) -> dict[tuple[str, int], Search]:
    """Runs all searches that are not finished.

    Returns:
      The contents of their work directories, by search and seed.

    Raises:
      KeyboardInterrupt: Ctrl-C or SIGTERM came, and finished work is saved.
      ValueError, DataNotFoundError: a search cannot run, see `evolution.session.run_search`.
    """
    searches: dict[tuple[str, int], Search] = {}
    pairs = chosen_searches(config)
    evaluators: dict[int, Evaluator] = {}
    with stop_requested() as stopped:
        for number, (seed, name) in enumerate(pairs, 1):
            path, settings = search_dir(workdir, name, seed), search_config(config, name, seed)
            done = _finished(path, settings)
            logging.info(
                "search %d of %d: %s with seed %d%s", number, len(pairs), name, seed, done * ", done before"
            )
            if not done:
                if seed not in evaluators:
                    release_programs()
                    evaluators = {seed: session.make_evaluator(settings)}
                first = searches.get(("random_search", seed))
                if not _run(settings, path, evaluators[seed], list(first.history) if first else [], stopped):
                    raise KeyboardInterrupt(STOPPED)
            searches[name, seed] = read_search(path)
    return searches


def _finished(path: epath.Path, settings: ConfigDict) -> bool:
    """Whether this search is finished. If not, it is resumed or its damage reported."""
    try:
        found = read_search(path)
    except WorkdirError:
        return False
    return found.finished and found.config == json.loads(json.dumps(settings.to_dict()))


def _run(
    settings: ConfigDict,
    path: epath.Path,
    evaluator: Evaluator,
    known: Sequence[Record],
    stopped: Callable[[], bool],
) -> bool:
    """Runs or resumes a search. Returns False if it was stopped, with all examined candidates saved."""
    with Recorder(settings, path, evaluator.devices) as recorder:
        history = recorder.history
        session.train_baselines(evaluator, session.search_baselines(settings), recorder, Hosts(), stopped)
        examine = Sharing(evaluator, known, history)
        proposals = session.evolution_settings(settings)
        limits = {"budget": settings.budget, "device_steps": settings.device_steps}
        rounds = search(history, examine, proposals, seed=settings.seed, **limits)
        interrupted = bool(stopped())
        while not interrupted and (records := next(rounds, None)) is not None:
            recorder.examined(records)
            interrupted = bool(stopped())
        recorder.finish()
        return not interrupted


class Sharing:
    """Examines the graphs of a round, or takes over the evaluations of another search.

    Args:
      evaluator: evaluator of both searches.
      known: records of the other search.
      history: history of this search so far.
    """

    def __init__(self, evaluator: Evaluator, known: Sequence[Record], history: History):
        self._evaluator, self._known = evaluator, known
        self._alike = self._agree(0, [record.graph for record in history])

    def _agree(self, start: int, graphs: Sequence[Graph]) -> bool:
        """Whether the other search examined the same graphs from a place on."""
        others = self._known[start : start + len(graphs)]
        return [record.graph for record in others] == list(graphs)

    def __call__(self, graphs: Sequence[Graph], history: History) -> list[Evaluation]:
        start = len(history)
        self._alike = self._alike and self._agree(start, graphs)
        if self._alike:
            return [record.evaluation for record in self._known[start : start + len(graphs)]]
        return self._evaluator.examine(graphs, history)
