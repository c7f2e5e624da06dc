"""Cost of the search itself at a million candidates: rounds, history, checkpoints, memory, report.

  python -m experiments.benchmarks.search_scale --config=experiments/configs/search_mnist5k.py \\
      --workdir=runs/benchmarks/search_scale --candidates=10000,100000

A search with made-up evaluations, drawn with the shares of outcomes of a real search from random graphs, so
that no device works. Proposals, history, log, checkpoints, display and report are the real ones. No column
may grow faster than the number of candidates. A million candidates take about half an hour and 4 GB.

Writes search_scale.json into the work directory.
"""

import gc
import resource
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags as absl_flags
from absl import logging
from etils import epath
from ml_collections import ConfigDict
from rich.table import Table

from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.history import Evaluation, History
from evonorms_jax.evolution.recorder import Recorder
from evonorms_jax.evolution.records import HISTORY_FILE, read_search
from evonorms_jax.evolution.search import search
from evonorms_jax.evolution.session import evolution_settings
from evonorms_jax.report import write_report
from evonorms_jax.search_space import Graph
from experiments import flags
from experiments.benchmarks import results

FLAGS = absl_flags.FLAGS
#: Shares of outcomes. A graph from random proposals is accepted about three times in a thousand.
SHARES = {
    "inert": 0.64,
    "flat": 0.2,
    "duplicate": 0.1,
    "unstable": 0.03,
    "low_quality": 0.027,
    "accepted": 0.003,
}


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    flags.define_config()
    text = "Numbers of candidates of the searches, in ascending order."
    absl_flags.DEFINE_list("candidates", ["10000", "100000"], text)


def main(argv):
    """Measures, prints the table, and writes the results."""
    del argv
    measured = measure(FLAGS.config, FLAGS.workdir, list(map(int, FLAGS.candidates)))
    results.publish(FLAGS.workdir, "search_scale.json", measured, table(measured))


def measure(config: ConfigDict, workdir: str, counts: Sequence[int]) -> dict[str, Any]:
    """A made-up search of each length, as a JSON object. Its work directory is removed afterwards."""
    rows = []
    for count in counts:
        folder = epath.Path(workdir) / f"search-{count}"
        shutil.rmtree(folder, ignore_errors=True)
        rows.append(run(config, folder, count))
        shutil.rmtree(folder)
        logging.info("%d candidates: %s", count, rows[-1])
    return {"machine": results.machine(), "config": config.to_dict(), "rows": rows}


def run(config: ConfigDict, folder: epath.Path, count: int) -> dict[str, float]:
    """A made-up search. Times in seconds of processor time, sizes in bytes."""
    config = config.copy_and_resolve_references()
    config.budget, config.device_steps = count, None
    gc.collect()
    before, started = memory(), time.process_time()
    with Recorder(config, str(folder), Devices(1)) as recorder:
        marks = []
        rounds = search(
            recorder.history, Made(config.seed, config.anchors).examine, evolution_settings(config),
            seed=config.seed, budget=count,
        )  # fmt: skip
        for records in rounds:
            recorder.examined(records)
            marks.append((len(recorder.history), time.process_time() - started))
        ended = time.process_time()
        recorder.finish()
        row = {
            "candidates": count,
            "accepted": recorder.history.num_selectable(),
            "seconds": ended - started,
            "first": _per_thousand(marks, 0, count // 10),
            "last": _per_thousand(marks, count - count // 10, count),
            "checkpoint": time.process_time() - ended,
            "memory": memory() - before,
            "log": (folder / HISTORY_FILE).stat().length,
        }
    started = time.process_time()
    read_search(folder)
    row["read"] = time.process_time() - started
    started = time.process_time()
    row["page"] = write_report(folder).stat().length
    return row | {"report": time.process_time() - started}


class Made:
    """Made-up evaluations, pure functions of the seed and the index."""

    def __init__(self, seed: int, anchors: Sequence[str]):
        self._seed, self._anchors = seed, anchors

    def examine(self, graphs: Sequence[Graph], history: History) -> list[Evaluation]:
        """The evaluations of the next candidates."""
        rng = np.random.default_rng([self._seed, len(history)])
        outcomes = rng.choice(list(SHARES), len(graphs), p=list(SHARES.values()))
        return [
            self._evaluation(str(outcome), rng, len(history) + place)
            for place, outcome in enumerate(outcomes)
        ]

    def _evaluation(self, outcome: str, rng: np.random.Generator, index: int) -> Evaluation:
        if outcome in ("inert", "flat"):
            return Evaluation(outcome, {"reason": "made up"})
        mark = f"{index:032x}"
        if outcome == "duplicate":
            return Evaluation(outcome, {"original": "low_quality"}, duplicate_of=0, fingerprint=mark)
        if outcome != "accepted":
            evidence = {"anchor": self._anchors[0], "accuracy": 0.1, "threshold": 0.2, "step": 100}
            return Evaluation(outcome, evidence, {}, 200, 0.1, None, mark)
        mean = rng.uniform(0.3, 0.9)
        scores = {name: float(mean + rng.normal(0, 0.03)) for name in self._anchors}
        return Evaluation(outcome, {"mean_score": mean}, scores, 600, 3.0, None, mark, (mean,))


def memory() -> int:
    """Largest resident set of this process so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _per_thousand(marks: Sequence[tuple[int, float]], start: int, end: int) -> float:
    """Seconds for a thousand candidates between two places of the history."""
    inside = [(0, 0.0)] * (start == 0) + [mark for mark in marks if start <= mark[0] <= end]
    (first, began), (last, ended) = inside[0], inside[-1]
    return 1000 * (ended - began) / max(1, last - first)


def table(measured: Mapping[str, Any]) -> Table:
    """A row for each length."""
    columns = ("accepted", "s for 1,000: first tenth", "last tenth", "checkpoint, s", "memory, MB", "log, MB")
    shown = Table("candidates", *columns, "reading, s", "report, s", "page, MB", title="processor seconds")
    for row in measured["rows"]:
        sizes = (f"{row[name] / 1e6:.1f}" for name in ("memory", "log"))
        times = (f"{row[name]:.2f}" for name in ("first", "last", "checkpoint"))
        end = (f"{row['read']:.1f}", f"{row['report']:.1f}", f"{row['page'] / 1e6:.1f}")
        shown.add_row(f"{row['candidates']:,}", str(row["accepted"]), *times, *sizes, *end)
    return shown


if __name__ == "__main__":
    define_flags()
    flags.run(main, example="experiments/configs/search_mnist5k.py", holds="workdir")
