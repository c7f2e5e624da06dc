"""Records a search while it runs: archive, curves and display."""

import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from evonorms_jax.evolution.archive import Archive
from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.history import OUTCOMES, Evaluation, History, Record, percent_text
from evonorms_jax.evolution.reranking import RerankedLayer
from evonorms_jax.runs.display import Display
from evonorms_jax.runs.metrics import Scalars
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.search_space import Graph
from evonorms_jax.search_space.simplify import readable

# The history grows by one part in so many between two checkpoints, at least.
_GROWTH = 8


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

    def reranked(self) -> list[int | str]:
        """Indices of the candidates and names of the baselines that were trained again so far."""
        return []

    def add_reranked(self, layers: Sequence[RerankedLayer], left: int) -> None:
        """Saves and shows layers that were trained again. `left` is the number of those to come."""

    def finish(self) -> None:
        """Saves the last state of the search."""


class Recorder(SilentRecorder):
    """The archive, the curves and the display of a search.

    The display has counts, speed, idle devices, and the best layer so far beside BN-ReLU.

    Args:
      config: config of the search.
      workdir: work directory, claimed here for the config.
      devices: devices whose idle time is shown.

    Raises:
      ValueError: if the work directory belongs to another config or is damaged.
      OSError: if another process holds it, or it cannot be written to.
    """

    def __init__(self, config: ConfigDict, workdir: str, devices: Devices):
        self._budget, self._limit = config.budget, config.device_steps
        self._every, self._devices = config.checkpoint_every, devices
        with contextlib.ExitStack() as opened:
            path = opened.enter_context(claim_workdir(workdir, config.to_dict()))
            self._archive = opened.enter_context(Archive(path, config.top_k))
            self.history = self._archive.restore()
            self._display = opened.enter_context(Display(f"{config.name}, {config.method}"))
            self._scalars = opened.enter_context(Scalars(path / "tensorboard", step=len(self.history)))
            self._opened = opened.pop_all()
        self._outcomes = Counter(record.evaluation.outcome for record in self.history)
        self._best: Record | None = next(iter(self.history.ranked()), None)
        self._started, self._first, self._saved = time.monotonic(), len(self.history), 0
        self._bar = ""  # the scores of BN-ReLU

    def __exit__(self, *error) -> None:
        self._opened.__exit__(*error)

    def baselines(self) -> list[str]:
        return list(self._archive.baselines())

    def prepare(self, text: str) -> None:
        self._show([("preparing", text)])

    def add_baseline(self, name: str, graph: Graph, evaluation: Evaluation) -> None:
        self._archive.add_baseline(name, graph, evaluation)

    def start(self) -> None:
        self._started = time.monotonic()
        baseline = self._archive.baselines().get("bn_relu")
        if baseline is not None:
            scores = baseline["scores"]
            self._bar = "BN-ReLU " + (_percentages(scores) if scores else "is rejected")

    def examined(self, records: Sequence[Record]) -> None:
        self._archive.append(records)
        for record in records:
            self._outcomes[record.evaluation.outcome] += 1
            if record.selectable and (self._best is None or record.mean_score > self._best.mean_score):
                self._best = record
        minutes = max(time.monotonic() - self._started, 1e-9) / 60
        rate, idle = (len(self.history) - self._first) / minutes, self._devices.idle_share
        self._show(self._rows(rate, idle))
        self._scalars.write(len(self.history), self._curves(rate, idle))
        first, end = records[0].index, records[-1].index + 1
        # A checkpoint holds the whole history. In a long search they become rarer, so that all of them
        # together cost no more than a multiple of the last one. The log has the candidates in between.
        grown = (end - self._saved) * _GROWTH >= self._saved
        if end // self._every > first // self._every and grown:
            self._scalars.flush()
            self._archive.checkpoint(self.history)
            self._saved = end

    def reranked(self) -> list[int | str]:
        return [layer.name if layer.index is None else layer.index for layer in self._archive.reranked()]

    def add_reranked(self, layers: Sequence[RerankedLayer], left: int) -> None:
        best, *_ = self._archive.add_reranked(layers)
        shown = f"{readable(best.graph)}  {percent_text(best.mean, best.deviation)} %"
        self._show([("re-ranking with fresh seeds", f"{left} layers left"), ("best so far", shown)])

    def finish(self) -> None:
        self._archive.checkpoint(self.history)

    def _show(self, rows: Sequence[tuple[str, str]]) -> None:
        completed, total = len(self.history), self._budget
        if (
            self._limit is not None
        ):  # steps tell the time left better than candidates, of which most cost none
            completed, total = (
                min(self.history.steps(), self._limit),
                self._limit,
            )  # a last round may cost more
        self._display.update(completed=completed, total=total, rows=rows)

    def _rows(self, rate: float, idle: float) -> list[tuple[str, str]]:
        seen = ((self._outcomes[name], outcome.title) for name, outcome in OUTCOMES.items())
        best, devices = "no candidate accepted yet", self._devices.devices
        examined = f"{len(self.history):,} candidates"
        if self._limit is not None:
            examined += f" in {self.history.steps():,} of {self._limit:,} steps"
        if self._best is not None:
            best = f"{readable(self._best.graph)}  {_percentages(self._best.evaluation.scores)}"
        return [
            ("examined", examined),
            ("outcomes", ", ".join(f"{number} {title}" for number, title in seen if number)),
            ("speed", f"{rate:.0f} candidates a minute"),
            ("devices", f"{len(devices)} of kind {devices[0].device_kind}, idle {100 * idle:.0f} %"),
            ("best so far", best),
            ("to compare", self._bar),
        ]

    def _curves(self, rate: float, idle: float) -> dict[str, float]:
        values = {f"outcomes/{outcome}": self._outcomes[outcome] for outcome in OUTCOMES}
        values |= {"candidates_per_minute": rate, "idle_share": idle}
        if self._best is not None:
            values["best/mean"] = self._best.mean_score
            values |= {f"best/{name}": score for name, score in self._best.evaluation.scores.items()}
        return values
