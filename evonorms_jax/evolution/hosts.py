"""Several hosts, one search: each says what it found, all hear the same, a lost host ends the run.

A candidate is trained within one host, so no device ever waits for a device of another host, and what hosts
say to each other is small and JSON: it goes over TCP connections to process 0, which tell at once of a killed
process. `meeting.connect` makes them.
"""

import json
import os
import threading
from typing import Any, Self

from evonorms_jax.evolution.link import AGAIN, BYE, OVER, VALUE, Link

_GRACE = 2.0  # s that a process gets to end by itself, perhaps over an error of its own


class Hosts:
    """This process among those of a run; `Hosts()` is the only one.

    The loss of a host ends every other process with one line and exit status 1. Where it waits for the
    others, `gather` raises. Anywhere else the main thread may be busy for minutes, so a thread ends the
    process: what has to survive must be on disk at any moment. A host is lost if its process ends before
    `close`, or if nothing comes from its machine; it may take any time over its work.

    A context manager: at an exception, the others are told.

    Attributes:
      index: of this process.
      count: of all processes.
      leader: whether this is process 0, the one that writes.
      links: connections to the others: process 0 has one to each, and each has one to it.
    """

    def __init__(self, index: int = 0, count: int = 1):
        self.index, self.count, self.leader = index, count, index == 0
        self.links: dict[int, Link] = {}
        self._losing, self._ended = threading.Lock(), threading.Event()

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes in the order of their indices, on every process; waits for the last.

        Args:
          value: what JSON can hold; comes back as JSON gives it, also to a single process.

        Raises:
          ConnectionError: if a host is lost.
        """
        own = json.dumps(value).encode()
        if self.leader:
            everyone = b",".join([own, *(self.receive(index) for index in range(1, self.count))])
            for link in self.links.values():
                link.send(VALUE + everyone)
        else:
            self.links[0].send(VALUE + own)
            everyone = self.receive(0)
        return json.loads(b"[" + everyone + b"]")

    def broadcast(self, value: Any = None) -> Any:
        """The value of process 0, whatever the others pass; otherwise as `gather`."""
        return self.gather(value if self.leader else None)[0]

    def check_same(self, name: str, value: Any) -> None:
        """Raises `ValueError`, on every host, unless all pass equal values; otherwise as `gather`."""
        first, *others = self.gather(value)
        different = [str(index) for index, other in enumerate(others, 1) if other != first]
        if different:
            raise ValueError(f"{name} differs between process 0 and process {', '.join(different)}")

    def receive(self, index: int) -> bytes:
        """The next value that a process sends to this one; errors as `gather`."""
        line = self.links[index].received.get()
        if line.startswith(OVER):
            self._ended.set()
            raise ConnectionError(line.removeprefix(OVER).decode())
        return line.removeprefix(VALUE)

    def close(self) -> None:
        """Takes leave: from here on, nobody counts this process as lost, nor this process anybody."""
        self._end(BYE)

    def fail(self, reason: str) -> None:
        """Takes leave and ends all others with this line."""
        self._end(OVER + reason.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if kind is None:
            self.close()
        else:
            self.fail(f"process {self.index} ended by {kind.__name__}, see what it printed; {AGAIN}")

    def _end(self, line: bytes) -> None:
        if not self._ended.is_set():
            self._ended.set()
            for link in self.links.values():
                link.leave(line)

    def lost(self, reason: str) -> None:
        """For a link, in its thread: tells the others and ends the process unless the main thread does."""
        if self._ended.is_set() or not self._losing.acquire(blocking=False):
            return
        try:
            for link in list(self.links.values()):
                link.received.put(OVER + reason.encode())
                link.leave(OVER + reason.encode())
        finally:
            if not self._ended.wait(_GRACE):
                exit_now(reason)


def exit_now(reason: str) -> None:
    """Ends the process with one line, whatever the main thread does."""
    terminal = "\x1b[?25h\n" if os.isatty(2) else ""  # a live display hides the cursor
    os.write(2, f"{terminal}error: {reason}\n".encode())
    os._exit(1)
