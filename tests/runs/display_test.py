"""What people see, on a terminal and off it, and the curves of a run that was stopped."""

import io
import json
import re
import struct
import sys

import pytest
from absl import logging
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event, SessionLog

from evonorms_jax.runs.display import Display
from evonorms_jax.runs.metrics import JsonLines, Scalars

ROWS = [("best", "x / max(std_bwh(x), [v1] * x)"), ("accuracy", "63.2 %")]
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


class Clock:
    """Seconds that pass when told."""

    now = 100.0

    def __call__(self):
        return self.now


def terminal(**options):
    return Console(file=io.StringIO(), width=100, **options)


def plain(output):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)


def test_a_terminal_shows_a_panel():
    console, clock = terminal(force_terminal=True), Clock()
    with Display("search", console=console, clock=clock) as display:
        for completed in (40, 50, 60):
            clock.now += 30
            display.update(completed=completed, total=300, rows=ROWS)
    output = console.file.getvalue()
    assert output.startswith(HIDE_CURSOR) and SHOW_CURSOR in output
    last = plain(output).split("╭─ search ")[-1]
    assert "best      x / max(std_bwh(x), [v1] * x)" in last and "accuracy  63.2 %" in last
    # 10 in 30 seconds since this process began, whatever was completed before.
    assert "60/300" in last and "12:00 left" in last


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_gives_the_terminal_back(error):
    console, streams = terminal(force_terminal=True), (sys.stdout, sys.stderr)
    handler = logging.get_absl_handler().python_handler
    stream = handler.stream
    with pytest.raises(error), Display("search", console=console) as display:
        display.update(completed=1, total=2, rows=ROWS)
        assert handler.stream is sys.stderr is not stream
        raise error
    assert console.file.getvalue().rstrip().endswith(SHOW_CURSOR)
    assert (sys.stdout, sys.stderr) == streams and handler.stream is stream


def test_a_terminal_is_given_back_without_an_update():
    console = terminal(force_terminal=True)
    with Display("search", console=console):
        pass
    assert console.file.getvalue().rstrip().endswith(SHOW_CURSOR)


def test_elsewhere_lines_come_now_and_then_and_at_the_end():
    console, clock = terminal(), Clock()
    with Display("search", interval=10, console=console, clock=clock) as display:
        for completed in range(26):
            display.update(completed=completed, total=25, rows=[("best", str(completed)), *ROWS])
            clock.now += 1
    lines = console.file.getvalue().splitlines()
    counts = [re.fullmatch(r"\d\d:\d\d:\d\d (\d+)/25 .*", line)[1] for line in lines]
    assert counts == ["0", "10", "20", "25"]
    assert lines[2][9:] == (
        "20/25 (80 %), 0:05 left | best 20 | best x / max(std_bwh(x), [v1] * x) | accuracy 63.2 %"
    )
    assert "\x1b" not in console.file.getvalue()


def test_the_last_line_comes_once_and_also_after_an_exception():
    console = terminal()
    with pytest.raises(RuntimeError), Display("search", interval=1e9, console=console) as display:
        display.update(completed=1, total=3, rows=())
        display.update(completed=2, total=3, rows=())
        raise RuntimeError
    assert [line.split()[1] for line in console.file.getvalue().splitlines()] == ["1/3", "2/3"]
    console = terminal()
    with Display("search", console=console) as display:
        display.update(completed=3, total=3, rows=())
    assert len(console.file.getvalue().splitlines()) == 1


def test_the_state_in_which_all_is_done_is_logged_whatever_follows():
    """A search goes on with a re-ranking, and its log has the outcomes of the whole budget."""
    console = terminal()
    with Display("search", interval=1e9, console=console) as display:
        for completed, text in ((0, "begins"), (5, "half"), (10, "whole"), (10, "again"), (10, "ranked")):
            display.update(completed=completed, total=10, rows=[("state", text)])
    lines = console.file.getvalue().splitlines()
    assert [line.split()[-1] for line in lines] == ["begins", "whole", "ranked"]


def test_long_lines_are_not_folded_and_a_dumb_terminal_gets_lines():
    console = terminal(force_terminal=True, _environ={"TERM": "dumb"})
    with Display("search", console=console) as display:
        display.update(completed=1, total=2, rows=[("best", "x + " * 100)])
    (line,) = console.file.getvalue().splitlines()
    assert "x + " * 100 in line


def events(directory):
    """All events in the order of the files, read by the format of TFRecord."""
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + size])
            content = content[16 + size :]


def curves(directory):
    """What TensorBoard shows: a session start drops what was there from its step on."""
    points = {}
    for event in events(directory):
        if event.session_log.status == SessionLog.START:
            points = {tag: [p for p in kept if p[0] < event.step] for tag, kept in points.items()}
        for value in event.summary.value:
            points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points


def test_curves_go_on_from_the_restored_step(tmp_path):
    with Scalars(tmp_path, step=0) as scalars:
        for step in range(1, 6):
            scalars.write(step, {"train/loss": step, "train/accuracy": 0.5})
    with Scalars(tmp_path, step=3) as scalars:
        scalars.write(4, {"train/loss": 40})
    assert curves(tmp_path) == {
        "train/loss": [(1, 1), (2, 2), (3, 3), (4, 40)],
        "train/accuracy": [(1, 0.5), (2, 0.5), (3, 0.5)],
    }


def test_flushed_points_are_in_the_file(tmp_path):
    scalars = Scalars(tmp_path, step=0)
    for step in range(50):
        scalars.write(step, {"loss": step})
    scalars.flush()
    assert len(curves(tmp_path)["loss"]) == 50
    scalars.__exit__()


def test_lines_go_on_from_the_restored_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for start, steps in ((0, range(1, 6)), (3, range(4, 5))):
        lines = JsonLines(path, step=start)
        for step in steps:
            lines.write(step, {"train/loss": step + 10 * start})
        lines.flush()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["step"], row["train/loss"]) for row in found] == [(1, 1), (2, 2), (3, 3), (4, 34)]


def test_a_bucket_without_its_library_costs_only_the_curves(monkeypatch, caplog, tmp_path):
    def missing(*_):
        raise ImportError("`google-cloud-storage` must be installed in order to use the 'gs://' protocol")

    monkeypatch.setattr("evonorms_jax.runs.metrics.EventsWriter", missing)
    with caplog.at_level("WARNING", "absl"), Scalars(tmp_path, step=0) as scalars:
        scalars.write(1, {"loss": 1.0})
        scalars.flush()
    assert caplog.text.count("no TensorBoard scalars") == 1
