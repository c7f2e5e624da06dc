"""Made-up histories and results for tests of the studies."""

import json

from evonorms_jax.evolution.history import Evaluation, Proposal, Record
from evonorms_jax.search_space import BASELINES, CATALOG

KNOWN = list((BASELINES | CATALOG).values())


def records(*scores):
    """A history with one mean score a candidate, over two anchors; None is a rejected one."""
    made = []
    for index, score in enumerate(scores):
        outcome, by_anchor = "low_quality", {}
        if score is not None:
            outcome, by_anchor = "accepted", {"a": score - 0.1, "b": score + 0.1}
        evaluation = Evaluation(outcome, {}, by_anchor, seconds=30.0)
        made.append(Record(index, Proposal(KNOWN[index], "random"), evaluation))
    return made


def finish(runner, cell, result):
    """Writes the result of a cell as its training would; None is a training that was lost."""
    workdir = runner.folder / cell.name
    workdir.mkdir(parents=True)
    name = "lost.json" if result is None else runner.trainer.result
    (workdir / name).write_text(json.dumps({} if result is None else result))
