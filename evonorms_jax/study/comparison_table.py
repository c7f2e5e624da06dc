"""The results of a comparison of methods as a table."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from evonorms_jax.study.full_training import TRAINERS
from evonorms_jax.study.methods import METHODS
from evonorms_jax.study.table import DASH, Json, Table, hardware_text, paired_interval

#: Scores of a method: mean over the anchors of the search, and the held-out one.
PARTS = ("searched", "held_out")
#: Costs of a method, each a mean over its searches.
COSTS = ("examined", "accepted", "device_steps", "device_minutes")
_METRIC = TRAINERS["classification"].metrics["test.accuracy"]


def make_table(results: Json) -> Table:
    """The table of the results, with a rule between methods and baselines."""
    held_out = results["config"]["retraining"]["held_out_anchor"]
    rows = []
    for above, row in itertools.pairwise([None, *results["methods"]]):
        tests = [run["test"] for run in row["runs"] if run["test"]]
        accuracies = (_cell(row, part) for part in PARTS)
        above = above if above and above["of_paper"] == row["of_paper"] else None
        gains = (_gain(row, above, part) for part in PARTS)
        rows.append([row["title"], *accuracies, *gains, *_losses(tests, held_out), *_costs(row)])
    for row in results["known_layers"]:
        accuracies = (_METRIC.text(row[part]) for part in PARTS)
        rows.append([row["title"], *accuracies, DASH, DASH, *_losses([row], held_out), DASH, DASH, DASH])
    header = [
        "layer",
        "search anchors, test %",
        f"{held_out}, test %",
        "minus the row above",
        f"the same on {held_out}",
        "NaN %",
        "without NaN, test %",
        "accepted / examined",
        "thousand steps",
        "device minutes",
    ]
    return Table(header, rows, notes(results), section=len(results["methods"]))


def _cell(row: Json, part: str) -> str:
    """The accuracy of a method, and how many of its searches accepted a layer at all."""
    if row[part] is None:
        return f"none accepted in {row['examined']:.0f}"
    number, runs = row[part]["number"], len(row["runs"])
    return _METRIC.text(row[part]) + ("" if number == runs else f" ({number} of {runs} searches)")


def _gain(row: Json, above: Json | None, part: str) -> str:
    """The mean gain over another method, paired by seed, with its interval."""
    scores = [
        {run["seed"]: run["test"][part]["mean"] for run in method["runs"] if run["test"]}
        for method in (row, above or row)
    ]
    seeds = sorted(set(scores[0]) & set(scores[1]))
    if above is None or not seeds:
        return DASH
    pairs = [[100 * by_seed[seed] for seed in seeds] for by_seed in scores]
    low, high = paired_interval(*pairs)
    return f"{np.mean(np.subtract(*pairs)):+.1f} ({low:+.1f} to {high:+.1f})"


def _losses(tests: Sequence[Json], held_out: str) -> Iterator[str]:
    """The share of trainings whose loss was not finite, in %, and the accuracy of the others."""
    scores = [by_anchor for test in tests for by_anchor in test["by_seed"].values()]
    every = [score for by_anchor in scores for score in by_anchor.values()]
    yield f"{100 * every.count(0) / len(every):.0f}" if every else DASH
    sound = [s for by_anchor in scores for name, s in by_anchor.items() if name != held_out and s]
    yield f"{100 * np.mean(sound):.1f}" if sound else DASH


def _costs(row: Json) -> list[str]:
    if not METHODS[row["name"]].rejection:
        return [DASH] * 3
    steps = DASH if row["device_steps"] is None else f"{row['device_steps'] / 1000:.3g}"
    return [f"{row['accepted']:.3g} / {row['examined']:.0f}", steps, f"{row['device_minutes']:.1f}"]


_TESTS = """
Layers are trained anew for {steps} steps with fresh seeds ({seeds}) and scored on test images that no
search has seen. A training whose loss is not finite counts as 0. NaN % is the share of those, and the
next column is the mean of the others on the search anchors. Mean ± sample standard deviation: for a
method over its searches, each the mean over the fresh seeds, and for a baseline over the fresh seeds. A
gain over the row above is paired by seed, with its 95 % bootstrap interval, which is too narrow for a few
searches. Costs are means over the searches. The layer of Random is the first proposal of a random search,
and the layer of Random + rejection is the first that it accepts.
"""
_RANKED = """
The {top} best layers of a search, of which no two have outputs that agree to 1 %, are trained again for
{steps} steps with fresh seeds ({seeds}), and the best mean on validation images chooses its layer.
"""
_BEYOND = """
The methods that are called seeded go beyond the paper: they begin with BN-ReLU and GN-ReLU, and their
candidates are random graphs, mutations of a uniformly drawn parent, or mutations of the winner of a
tournament.
"""
_FIGURE = """
In the figure, a thin line is one search and a thick line the mean of those that accepted any layer.
"""


def notes(results: Json) -> str:
    """The paragraph below the table."""
    config = results["config"]
    seeds = {
        plan: _list(config[plan]["seeds"]) for plan in ("reranking", "retraining") if config[plan] is not None
    }
    plan = config["reranking"]
    parts = [
        f"{config['name'].capitalize()}: searches with the seeds {_list(config['seeds'])}.",
        _budget(config),
        _RANKED.format_map(plan | {"seeds": seeds["reranking"]}) if plan else "",
        _TESTS.format_map(config["retraining"] | {"seeds": seeds["retraining"]}),
        "" if all(row["of_paper"] for row in results["methods"]) else _BEYOND,
        f"The rule for the end was set before the run: {config['stop_rule']}" if config["stop_rule"] else "",
        _FIGURE,
        f"{hardware_text(results['hardware'] | results['versions'])}. {results['date'][:10]}.",
    ]
    return " ".join(" ".join(parts).split())


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _budget(config: Json) -> str:
    if config["device_steps"] is None:
        return f"Every search examines {config['budget']} candidates."
    return (
        f"Every search has a budget of {config['device_steps']:,} steps of training and stability test, "
        f"counted over all anchors, and of {config['budget']:,} candidates."
    )
