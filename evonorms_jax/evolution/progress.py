"""What a person sees of a search while it runs."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence

from evonorms_jax.evolution.devices import Devices
from evonorms_jax.evolution.history import OUTCOMES, History, Record
from evonorms_jax.training.display import Display
from evonorms_jax.training.metrics import Scalars


class Progress:
    """Counts, speed, use of the devices, the best layer so far beside BN-ReLU."""

    def __init__(self, display: Display, scalars: Scalars, history: History, budget: int, devices: Devices):
        self._display, self._scalars, self._devices = display, scalars, devices
        self._history, self._budget = history, budget
        self._outcomes = Counter(record.evaluation.outcome for record in history)
        ranked = history.ranked()
        self._best: Record | None = ranked[0] if ranked else None
        self._started, self._first = time.monotonic(), len(history)
        self._bar = ""

    def start(self, bar: Mapping[str, float]) -> None:
        """Starts the clock of the search proper; `bar` holds the scores of BN-ReLU."""
        self._started = time.monotonic()
        self._bar = "BN-ReLU " + (_percentages(bar) if bar else "is rejected")

    def preparing(self, what: str) -> None:
        """Shows what is done before the first candidate."""
        self._display.update(completed=len(self._history), total=self._budget, rows=[("preparing", what)])

    def examined(self, records: Sequence[Record]) -> None:
        """Shows the state after a round."""
        for record in records:
            self._outcomes[record.evaluation.outcome] += 1
            original = record.evaluation.duplicate_of is None
            if (
                record.selectable
                and original
                and (self._best is None or record.mean_score > self._best.mean_score)
            ):
                self._best = record
        minutes = max(time.monotonic() - self._started, 1e-9) / 60
        rate = (len(self._history) - self._first) / minutes
        seen = ((self._outcomes[outcome], outcome.replace("_", " ")) for outcome in OUTCOMES)
        counts = ", ".join(f"{number} {outcome}" for number, outcome in seen if number)
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
            return "none is accepted yet"
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
