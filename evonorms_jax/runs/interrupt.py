"""Ends of a process: between two steps, when Ctrl-C or SIGTERM asked for it, or at once with one line."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

_ACTIVE: list[threading.Event] = []  # one for each loop that asks, the outer ones first
_NOTE = b"\nstopping after this step; once more to stop at once\n"


@contextlib.contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Yields a function that tells whether Ctrl-C or SIGTERM has come since, also to an inner loop.

    An exception in the middle of a step could leave the state half updated: its buffers are donated to the
    step. The second signal raises `KeyboardInterrupt` at once. Outside the main thread, where Python allows
    no handlers, signals are left alone.
    """
    came = threading.Event()

    def note(signum, frame):
        del frame
        signal.signal(signum, at_once)
        for event in _ACTIVE:
            event.set()
        # Not print, since the signal may have come in the middle of another one.
        os.write(2, _NOTE)

    def at_once(signum, frame):
        del signum, frame
        raise KeyboardInterrupt("stopped at once; the work since the last checkpoint is lost")

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    _ACTIVE.append(came)
    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came.is_set
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _ACTIVE.remove(came)


def exit_now(reason: str, status: int = 1) -> None:
    """Ends the process from any thread with one line, whatever the main thread does."""
    terminal = "\x1b[?25h\n" if os.isatty(2) else ""  # a live display hides the cursor
    os.write(2, f"{terminal}error: {reason}\n".encode())
    os._exit(status)
