"""Lines of an input as they come."""

import queue
import threading
from collections.abc import Iterable, Iterator

_END = None


def chunks(lines: Iterable[str], most: int = 64) -> Iterator[list[str]]:
    """Yields the lines in lists: as soon as there is one, with all others that have come by then.

    So a program that waits for an answer gets it, and a file is read in large parts. Blank lines are left
    out.

    Args:
      lines: lines of an open file, read by a thread.
      most: the longest list.
    """
    found: queue.Queue[str | None] = queue.Queue(maxsize=most)

    def read() -> None:
        try:
            for line in lines:
                if line.strip():
                    found.put(line)
        finally:
            found.put(_END)

    threading.Thread(target=read, daemon=True).start()
    line = found.get()
    while line is not _END:
        chunk = [line]
        line = _next(found)
        while line not in (_END, "") and len(chunk) < most:
            chunk.append(line)
            line = _next(found)
        yield chunk
        line = found.get() if line == "" else line


def _next(found: queue.Queue) -> str | None:
    """The next line, the end, or "" if none has come yet."""
    try:
        return found.get_nowait()
    except queue.Empty:
        return ""
