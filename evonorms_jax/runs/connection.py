"""A TCP connection between two processes of a run, each of which hears at once of the other's end."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable

# What goes over a connection is lines; the first byte says what one is.
VALUE, ALIVE, BYE, OVER, REFUSED = b"=", b".", b"/", b"!", b"?"
AGAIN = "start the same command again on all hosts to go on"
_BEATS = 5  # signs of life within the time after which a silent peer is lost
_PATIENCE = 1.0  # s that sending a last line may take; four attempts to connect


class Link:
    """A connection to a peer, with a thread that reads and a thread that shows that this process is alive.

    Args:
      connection: connected.
      peer: its name, for people.
      lost: called with a reason, and whether it is a refusal, in a thread, when the peer is lost: it closed
        the connection without a last line (the system does that for a process that is killed), its last line
        gave a reason, or it was silent for `lost_after` seconds, as a machine without power is.
    """

    def __init__(
        self, connection: socket.socket, peer: str, lost: Callable[[str, bool], None], lost_after: float
    ):
        connection.settimeout(lost_after)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # lines that carry something
        self._connection, self._peer, self._lost, self._lost_after = connection, peer, lost, lost_after
        self._sending, self._done = threading.Lock(), threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._beat, daemon=True).start()

    def send(self, line: bytes) -> None:
        """Sends a line. If the peer is lost that is heard from the thread that reads, not here."""
        with self._sending:
            try:
                self._connection.sendall(line + b"\n")
            except OSError:
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads

    def leave(self, line: bytes) -> None:
        """Sends the last line: `BYE`, and waits until it has arrived, or `OVER` or `REFUSED` and a reason."""
        self._done.set()
        if self._sending.acquire(timeout=_PATIENCE):
            with contextlib.suppress(OSError):  # it may be closed already
                if line != BYE:
                    self._connection.settimeout(_PATIENCE)
                self._connection.sendall(line + b"\n")
                self._connection.shutdown(socket.SHUT_WR)
            self._sending.release()
        if line == BYE:
            self._reader.join()  # the peer's answer to a last line is to close the connection

    def _beat(self) -> None:
        while not self._done.wait(self._lost_after / _BEATS):
            self.send(ALIVE)

    def _read(self) -> None:
        reason, refused = f"lost {self._peer}: its connection closed; {AGAIN}", False
        try:
            with self._connection, self._connection.makefile("rb") as lines:
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
            pass  # a connection that broke is as good as closed
        self._done.set()
        if reason:
            self._lost(reason, refused)
        else:
            self.received.put(OVER + f"{self._peer} has left the run".encode())


def dial(host: str, port: int, timeout: float) -> socket.socket:
    """A connection to who listens there, or will soon.

    Raises:
      TimeoutError: if nobody does within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            left = max(deadline - time.monotonic(), _PATIENCE)
            connection = socket.create_connection((host, port), timeout=left)
            if connection.getsockname() != connection.getpeername():
                return connection
            connection.close()  # where nobody listens, TCP may answer itself
            why = "nobody listens"
        except OSError as error:
            why = error.strerror or str(error)
        if time.monotonic() > deadline:
            raise TimeoutError(f"no answer from {host}:{port} within {timeout:g} s: {why}")
        time.sleep(_PATIENCE / 4)
