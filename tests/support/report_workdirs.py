"""Work directories of made-up searches, written by the search's own code."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evonorms_jax.evolution.archive import Archive
from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.search_space import CATALOG, Graph, mutate, random_graph

ANCHORS = ("resnet_small", "mobilenet_small", "efficientnet_small")
CONFIG = {
    "name": "tiny <b>search</b>",
    "method": "evolution",
    "budget": 60,
    "anchors": ANCHORS,
    "top_k": 1,
    "rejection": {"stability_norm": 1e8},
}
EVIDENCE = {
    "unstable": {"anchor": ANCHORS[0], "norm": 3e9, "max_norm": 1e8, "step": 4},
    "low_quality": {"anchor": ANCHORS[0], "accuracy": 0.13, "threshold": 0.2, "step": 100},
    "diverged": {"anchor": ANCHORS[1], "loss": "not finite", "step": 33},
}
TRAINED = ("unstable", "low_quality", "diverged", "accepted")


def made_up_evaluation(rng: np.random.Generator, graph: Graph, outcomes: Sequence[str]) -> Evaluation:
    if not graph.uses_input:
        return Evaluation("inert", {"reason": "x does not reach the output"}, seconds=0.01)
    outcome = outcomes[int(rng.integers(len(outcomes)))]
    scores = dict(zip(ANCHORS, rng.uniform(0.4, 0.9, 3).tolist(), strict=True))
    scores = scores if outcome == "accepted" else {}
    evidence = EVIDENCE.get(outcome, {})
    return Evaluation(outcome, evidence, scores, steps=100, seconds=2.0, fingerprint=str(graph))


def made_up_history(number: int, outcomes: Sequence[str] = TRAINED) -> History:
    """Random graphs and mutations of EvoNorm-S0. A graph that is not inert has one of the outcomes."""
    rng, history = np.random.default_rng(1), History()
    for index in range(number):
        graph = mutate(rng, CATALOG["evonorm_s0"]) if index % 2 else random_graph(rng)
        evaluation = made_up_evaluation(rng, graph, outcomes)
        if original := history.original(evaluation.fingerprint):
            scores = original.evaluation.scores
            evaluation = evaluation._replace(outcome="duplicate", scores=scores, duplicate_of=original.index)
        origin = "mutation" if index % 2 else "random"
        history.append(Record(index, Proposal(graph, origin), evaluation))
    return history


def write_workdir(path: Path, history: History, config=CONFIG) -> Path:
    """Writes the files of a search with this history, and returns the work directory."""
    with claim_workdir(path, config) as workdir, Archive(workdir, config["top_k"]) as archive:
        archive.restore()
        for record in history:
            archive.append([record])
        archive.checkpoint(history)
        for name, score in {"bn_relu": 0.71, "evonorm_b0": 0.72, "evonorm_s0": 0.73}.items():
            graph = CATALOG.get(name, Graph.parse("max((x - mean_bwh(x)) / std_bwh(x), 0)"))
            archive.add_baseline(name, graph, Evaluation("accepted", {}, dict.fromkeys(ANCHORS, score)))
        archive.add_baseline(
            "gn_relu", CATALOG["evonorm_s1"], Evaluation("low_quality", EVIDENCE["low_quality"])
        )
    return path
