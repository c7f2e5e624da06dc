"""Several hosts, one search: JSON messages between them, and the loss of one host ends all.

A candidate is trained within one host, so no device waits for a device of another host. The messages are
small. They go over TCP connections to process 0, which `rendezvous.connect` makes, and a connection tells at
once when the process at its other end is killed.

`jax.experimental.multihost_utils` cannot carry this. Its values travel in programs on the devices of all
hosts, for which `jax.distributed` must stay up. Measured with two CPU processes, one of them killed, and a
heartbeat of 10 s instead of JAX's 100 s (JAX 0.10.2, 2026-11-27): XLA aborts the survivor with SIGABRT and 16
to 48 lines of stack, 1 s after the loss of process 0 and 9 s after that of process 1, whether it computes or
waits. Python cannot intervene, so there is neither one line nor an exit status. With
`jax_enable_recoverability`, process 0 does not hear of the loss of process 1 within 100 s.
"""

import contextlib
import json
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any, Self

from evonorms_jax.errors import UserError
from evonorms_jax.runs.interrupt import exit_now

# A message is a line, and its first byte is its kind.
VALUE, ALIVE, BYE, OVER, REFUSED = b"=", b".", b"/", b"!", b"?"
AGAIN = "start the same command again on all hosts to resume"
_BEATS = 5  # signs of life within the time after which a silent peer is lost
_PATIENCE = 1.0  # s that sending a last line may take
_GRACE = 2.0  # s for a process to end by itself, perhaps with an error of its own


class Hosts:
    """This process among those of a run; `Hosts()` is the only one.

    The loss of a host ends every other process with one line and exit status 1. A process that waits for
    the others raises in `gather`. Elsewhere the main thread may be busy for minutes, so a thread ends the
    process: results that have to survive must be on disk at any moment. A host is lost if its process ends
    before `close`, or if its machine falls silent. It may work for any length of time.

    A context manager. An exception is reported to the others: a `ValueError`, which starting again does not
    mend, ends them with its message and exit status 2.

    Attributes:
      index: number of this process.
      count: number of processes.
      leader: whether this is process 0, the one that writes.
      connections: sockets by process. Process 0 has one to each of the others, and they have one to it.
    """

    def __init__(self, index: int = 0, count: int = 1):
        self.index, self.count, self.leader = index, count, index == 0
        self.connections: dict[int, Connection] = {}
        self._losing, self._ended = threading.Lock(), threading.Event()

    def gather(self, value: Any) -> list[Any]:
        """Waits for the values of all processes, and returns them on each in the order of their numbers.

        The value is content for JSON, which returns as JSON gives it, to a single process too. Raises
        `ConnectionError` if a host is lost, and `ValueError` if one ended by a `ValueError`.
        """
        own = json.dumps(value).encode()
        if self.leader:
            everyone = b",".join([own, *(self.receive(index) for index in range(1, self.count))])
            for connection in self.connections.values():
                connection.send(VALUE + everyone)
        else:
            self.connections[0].send(VALUE + own)
            everyone = self.receive(0)
        return json.loads(b"[" + everyone + b"]")

    def broadcast(self, value: Any = None) -> Any:
        """The value of process 0, whatever the others pass. Otherwise as `gather`."""
        return self.gather(value if self.leader else None)[0]

    def check_same(self, name: str, value: Any) -> None:
        """Raises `ValueError`, on every host, unless all pass equal values. Otherwise as `gather`."""
        first, *others = self.gather(value)
        different = [str(index) for index, other in enumerate(others, 1) if other != first]
        if different:
            raise UserError(f"{name} differs between process 0 and process {', '.join(different)}")

    def receive(self, index: int) -> bytes:
        """The next value from a process. Errors are those of `gather`."""
        line = self.connections[index].received.get()
        kind, content = line[:1], line[1:]
        if kind == VALUE:
            return content
        self._ended.set()
        if kind == REFUSED:
            raise UserError(content.decode())
        raise ConnectionError(content.decode())

    def close(self) -> None:
        """Leaves the run: after this, no process treats another's exit as a failure."""
        self._end(BYE)

    def fail(self, reason: str, refused: bool = False) -> None:
        """Leaves the run and ends all others with this line."""
        self._end(_last_line(reason, refused))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _) -> None:
        if kind is None:
            self.close()
        elif issubclass(kind, ValueError):
            self.fail(f"process {self.index}: {' '.join(str(error).split())}", refused=True)
        else:
            self.fail(f"process {self.index} ended by {kind.__name__}, see its output; {AGAIN}")

    def _end(self, line: bytes) -> None:
        if not self._ended.is_set():
            self._ended.set()
            for connection in self.connections.values():
                connection.leave(line)

    def lost(self, reason: str, refused: bool) -> None:
        """Tells the others and ends the process, unless the main thread does. A connection calls this."""
        if self._ended.is_set() or not self._losing.acquire(blocking=False):
            return
        try:
            line, connections = _last_line(reason, refused), list(self.connections.values())
            for connection in connections:
                connection.leave(line)
            # After the others are told: the main thread, once it hears, may end the process.
            for connection in connections:
                connection.received.put(line)
        finally:
            if not self._ended.wait(_GRACE):
                exit_now(reason, 2 if refused else 1)


def _last_line(reason: str, refused: bool) -> bytes:
    return (REFUSED if refused else OVER) + reason.encode()


class Connection:
    """A TCP connection to a peer, with a thread that reads and a thread that shows that this process lives.

    Args:
      connected: the socket.
      peer: its name, for people.
      lost: callback `(reason, refused)` in a thread, when the peer is lost: it closed the connection without
        a last line (the system does that for a process that is killed), its last line gave a reason, or it
        was silent for `lost_after` seconds, as a machine without power is.
    """

    def __init__(
        self, connected: socket.socket, peer: str, lost: Callable[[str, bool], None], lost_after: float
    ):
        connected.settimeout(lost_after)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # values and last lines
        self._socket, self._peer, self._lost, self._lost_after = connected, peer, lost, lost_after
        self._sending, self._done = threading.Lock(), threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._beat, daemon=True).start()

    def send(self, line: bytes) -> None:
        """Sends a line. The thread that reads reports the loss of the peer, not this method."""
        with self._sending:
            try:
                self._socket.sendall(line + b"\n")
            except OSError:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads

    def leave(self, line: bytes) -> None:
        """Sends the last line: `BYE`, and waits until it has arrived, or `OVER` or `REFUSED` and a reason."""
        self._done.set()
        if self._sending.acquire(timeout=_PATIENCE):
            with contextlib.suppress(OSError):  # it may be closed already
                if line != BYE:
                    self._socket.settimeout(_PATIENCE)
                self._socket.sendall(line + b"\n")
                self._socket.shutdown(socket.SHUT_WR)
            self._sending.release()
        if line == BYE:
            self._reader.join()  # the peer answers a last line by closing the connection

    def _beat(self) -> None:
        while not self._done.wait(self._lost_after / _BEATS):
            self.send(ALIVE)

    def _read(self) -> None:
        reason, refused = f"lost {self._peer}: its connection closed; {AGAIN}", False
        try:
            with self._socket, self._socket.makefile("rb") as lines:
                for line in lines:
                    kind, whole = line[:1], line.endswith(b"\n")
                    if whole and kind == VALUE:
                        self.received.put(line[:-1])
                    if whole and kind in (BYE, OVER, REFUSED):
                        reason, refused = line[1:-1].decode(), kind == REFUSED
                        break
        except TimeoutError:
            reason = f"lost {self._peer}: silent for {self._lost_after:g} s; {AGAIN}"
        except OSError:
            pass  # a broken connection counts as closed
        self._done.set()
        if reason:
            self._lost(reason, refused)
        else:
            self.received.put(OVER + f"{self._peer} has left the run".encode())
