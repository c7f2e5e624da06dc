"""Progress of a run on the screen: a live panel on a terminal, a line from time to time anywhere else."""

import sys
import time
from collections.abc import Callable, Sequence

from absl import logging
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

Rows = Sequence[tuple[str, str]]  # (label, text)
# Rich estimates the speed over this period, since a round of a search can take minutes.
_SPEED_PERIOD = 600.0


class Display:
    """Shows the progress of a run, which the caller gives as plain data.

    A terminal gets a panel of rows and a progress bar with the time left, redrawn in place, with log lines
    above it. A file, a pipe or a dumb terminal gets the same as one line, at most every `interval` seconds,
    and always the last one. As a context manager it restores the terminal in any case.
    """

    def __init__(
        self,
        title: str,
        *,
        interval: float = 10.0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Shows no output before the first `update`.

        Args:
          title: heading of the panel.
          interval: seconds between two lines without a terminal.
          console: target of the output, by default the standard error stream.
          clock: time in seconds, for the estimates.
        """
        self._console = console or Console(stderr=True)
        self._title, self._interval, self._clock = title, interval, clock
        self._progress = Progress(
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
            console=self._console,
            get_time=clock,
            speed_estimate_period=_SPEED_PERIOD,
            expand=True,
        )
        self._rows: Rows = ()
        self._live: Live | None = None
        self._log_stream = None
        self._logged_at: float | None = None
        self._log_due = False

    def __enter__(self) -> "Display":
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(console=self._console, get_renderable=self._panel, refresh_per_second=4)
            self._live.start()
            # Live has replaced the standard streams, and the log must go through it.
            self._log_stream = logging.get_absl_handler().python_handler.setStream(sys.stderr)
        return self

    def __exit__(self, *_) -> None:
        if self._live is not None:
            self._live.stop()
            logging.get_absl_handler().python_handler.setStream(self._log_stream)
        elif self._log_due:
            self._log()

    def update(self, *, completed: int, total: int, rows: Rows) -> None:
        """Shows the number of steps or candidates done, and the rows. Cheap enough for every step."""
        self._rows = rows
        if not self._progress.tasks:
            self._progress.add_task("", total=total, left="?")
        task = self._progress.tasks[0]
        complete = task.completed < total <= completed  # is logged, whatever is shown after it
        self._progress.update(task.id, total=total, completed=completed)
        self._progress.update(task.id, left=_duration(task.time_remaining))
        self._log_due = True
        waited = self._logged_at is None or self._clock() - self._logged_at >= self._interval
        if self._live is None and (waited or complete):
            self._log()

    def _panel(self) -> Panel | Text:
        if not self._progress.tasks:
            return Text()
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for label, text in self._rows:
            table.add_row(Text(label), Text(text))
        return Panel(Group(table, Text(), self._progress), title=Text(self._title), title_align="left")

    def _log(self) -> None:
        task = self._progress.tasks[0]
        share = 100 * task.completed // max(1, task.total)
        state = f"{task.completed:g}/{task.total:g} ({share:g} %), {task.fields['left']} left"
        line = " | ".join([state, *(f"{label} {text}" for label, text in self._rows)])
        self._console.print(Text(f"{time.strftime('%H:%M:%S')} {line}"), soft_wrap=True)
        self._logged_at, self._log_due = self._clock(), False


def _duration(seconds: float | None) -> str:
    """`h:mm:ss` or `m:ss`, and `?` for an unknown time."""
    if seconds is None:
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
