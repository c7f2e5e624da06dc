"""Several hosts, one search: each says what it found, all hear the same, a lost host ends the run.

A candidate is trained within one host, so no device ever waits for a device of another host, and what hosts
say to each other is small and JSON: it goes over TCP connections to process 0, which tell at once of a killed
process. `meeting.connect` makes them.
"""

import json
import threading
from typing import Any, Self

from evonorms_jax.runs.connection import AGAIN, BYE, OVER, REFUSED, VALUE, Link
from evonorms_jax.runs.interrupt import exit_now

_GRACE = 2.0  # s that a process gets to end by itself, perhaps over an error of its own


class Hosts:
    """This process among those of a run; `Hosts()` is the only one.

    The loss of a host ends every other process with one line and exit status 1. Where it waits for the
    others, `gather` raises. Anywhere else the main thread may be busy for minutes, so a thread ends the
    process: what has to survive must be on disk at any moment. A host is lost if its process ends before
    `close`, or if nothing comes from its machine; it may take any time over its work.

    A context manager: at an exception, the others are told. A `ValueError`, which starting again does not
    mend, ends them with its line and exit status 2.

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
          ValueError: if one ended by a `ValueError`.
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
        kind, content = line[:1], line[1:]
        if kind == VALUE:
            return content
        self._ended.set()
        if kind == REFUSED:
            raise ValueError(content.decode())
        raise ConnectionError(content.decode())

    def close(self) -> None:
        """Takes leave: from here on, nobody counts this process as lost, nor this process anybody."""
        self._end(BYE)

    def fail(self, reason: str, refused: bool = False) -> None:
        """Takes leave and ends all others with this line."""
        self._end(_last_line(reason, refused))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _) -> None:
        if kind is None:
            self.close()
        elif issubclass(kind, ValueError):
            self.fail(f"process {self.index}: {' '.join(str(error).split())}", refused=True)
        else:
            self.fail(f"process {self.index} ended by {kind.__name__}, see what it printed; {AGAIN}")

    def _end(self, line: bytes) -> None:
        if not self._ended.is_set():
            self._ended.set()
            for link in self.links.values():
                link.leave(line)

    def lost(self, reason: str, refused: bool) -> None:
        """For a link, in its thread: tells the others and ends the process unless the main thread does."""
        if self._ended.is_set() or not self._losing.acquire(blocking=False):
            return
        try:
            line, links = _last_line(reason, refused), list(self.links.values())
            for link in links:
                link.leave(line)
            # After the others are told: the main thread, once it hears, may end the process.
            for link in links:
                link.received.put(line)
        finally:
            if not self._ended.wait(_GRACE):
                exit_now(reason, 2 if refused else 1)


def _last_line(reason: str, refused: bool) -> bytes:
    return (REFUSED if refused else OVER) + reason.encode()
