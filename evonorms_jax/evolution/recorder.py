"""Records a search while it runs: archive, curves and display."""

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from evonorms_jax.evolution.archive import Archive
from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.history import OUTCOMES, Evaluation, History, Record
from evonorms_jax.runs.display import Display
from evonorms_jax.runs.metrics import Scalars
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.search_space import Graph


class Progress:
    """The display of a search: counts, speed, idle devices, the best layer so far beside BN-ReLU."""

    def __init__(self, display: Display, scalars: Scalars, history: History, budget: int, devices: Devices):
        self._display, self._scalars, self._devices = display, scalars, devices
        self._history, self._budget = history, budget
        self._outcomes = Counter(record.evaluation.outcome for record in history)
        ranked = history.ranked()
        self._best: Record | None = ranked[0] if ranked else None
        self._started, self._first = time.monotonic(), len(history)
        self._bar = ""

    def start(self, bar: Mapping[str, float]) -> None:
        """Starts the clock after the baselines; `bar` holds the scores of BN-ReLU."""
        self._started = time.monotonic()
        self._bar = "BN-ReLU " + (_percentages(bar) if bar else "is rejected")

    def preparing(self, text: str) -> None:
        """Shows the work before the first candidate."""
        self._display.update(completed=len(self._history), total=self._budget, rows=[("preparing", text)])

    def examined(self, records: Sequence[Record]) -> None:
        """Shows the state after a round."""
        for record in records:
            self._outcomes[record.evaluation.outcome] += 1
            accepted = record.selectable and record.evaluation.duplicate_of is None
            if accepted and (self._best is None or record.mean_score > self._best.mean_score):
                self._best = record
        minutes = max(time.monotonic() - self._started, 1e-9) / 60
        rate = (len(self._history) - self._first) / minutes
        seen = ((self._outcomes[name], outcome.title) for name, outcome in OUTCOMES.items())
        counts = ", ".join(f"{number} {title}" for number, title in seen if number)
        devices, idle = self._devices.devices, self._devices.idle_share
        rows = [
            ("outcomes", counts),
            ("speed", f"{rate:.0f} candidates a minute"),
            ("devices", f"{len(devices)} of kind {devices[0].device_kind}, idle {100 * idle:.0f} %"),
            ("best so far", self._describe_best()),
            ("to compare", self._bar),
        ]
        self._display.update(completed=len(self._history), total=self._budget, rows=rows)
        self._write_scalars(rate, idle)

    def _describe_best(self) -> str:
        if self._best is None:
            return "no candidate accepted yet"
        return f"{self._best.graph}  {_percentages(self._best.evaluation.scores)}"

    def _write_scalars(self, rate: float, idle: float) -> None:
        values = {f"outcomes/{outcome}": self._outcomes[outcome] for outcome in OUTCOMES}
        values |= {"candidates_per_minute": rate, "idle_share": idle}
        if self._best is not None:
            values["best/mean"] = self._best.mean_score
            values |= {f"best/{name}": score for name, score in self._best.evaluation.scores.items()}
        self._scalars.write(len(self._history), values)


def _percentages(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{100 * score:.1f} % {name}" for name, score in scores.items())


class SilentRecorder:
    """The recorder of every process but process 0: it writes and shows nothing. A context manager.

    Attributes:
      history: history of an earlier run, to resume from.
    """

    def __init__(self):
        self.history = History()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    def baselines(self) -> list[str]:
        """Names of the baselines evaluated so far."""
        return []

    def prepare(self, text: str) -> None:
        """Shows the work before the first candidate."""

    def add_baseline(self, name: str, graph: Graph, evaluation: Evaluation) -> None:
        """Saves the evaluation of a baseline."""

    def start(self) -> None:
        """Starts the clock after the baselines."""

    def examined(self, records: Sequence[Record]) -> None:
        """Saves and shows a round that was appended to the history."""

    def finish(self) -> None:
        """Saves the last state of the search."""


class Recorder(SilentRecorder):
    """The archive, the curves and the display of a search.

    Args:
      config: config of the search.
      workdir: work directory, claimed here for the config.
      devices: devices whose idle time is shown.

    Raises:
      ValueError: if the work directory belongs to another config or is damaged.
      OSError: if another process holds it, or it cannot be written to.
    """

    def __init__(self, config: ConfigDict, workdir: str, devices: Devices):
        self._every = config.checkpoint_every
        with contextlib.ExitStack() as opened:
            path = opened.enter_context(claim_workdir(workdir, config.to_dict()))
            self._archive = opened.enter_context(Archive(path, config.top_k))
            self.history = self._archive.restore()
            display = opened.enter_context(Display(f"{config.name}, {config.method}"))
            self._scalars = opened.enter_context(Scalars(path / "tensorboard", step=len(self.history)))
            self._progress = Progress(display, self._scalars, self.history, config.budget, devices)
            self._opened = opened.pop_all()

    def __exit__(self, *error) -> None:
        self._opened.__exit__(*error)

    def baselines(self) -> list[str]:
        return list(self._archive.baselines())

    def prepare(self, text: str) -> None:
        self._progress.preparing(text)

    def add_baseline(self, name: str, graph: Graph, evaluation: Evaluation) -> None:
        self._archive.add_baseline(name, graph, evaluation)

    def start(self) -> None:
        self._progress.start(self._archive.baselines()["bn_relu"]["scores"])

    def examined(self, records: Sequence[Record]) -> None:
        self._archive.append(records)
        self._progress.examined(records)
        first, end = records[0].index, records[-1].index + 1
        if end // self._every > first // self._every:
            self._scalars.flush()
            self._archive.checkpoint(self.history)

    def finish(self) -> None:
        self._archive.checkpoint(self.history)
