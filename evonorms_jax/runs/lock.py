"""One process for each work directory: a lock file that names its holder and shows that it is alive.

`lock.json` is created with O_EXCL and says which process holds the directory. `flock` alone would not do: a
network file system may ignore it, keep it on one machine, or keep it for a client that is gone, and it cannot
name the holder. A holder updates the file every few seconds. A later process takes the lock over

- at once, if the holder ran on the same machine and its process does not exist any more,
- after `_LOST_AFTER` seconds without an update, if the holder runs on another machine.

Only changes of the file count, so clocks may differ. A holder that was suspended for longer than that finds
another name in the file and ends.

In a bucket there is neither O_EXCL nor a rename. There, a process writes its name, waits `_SETTLE` seconds
and reads it back. Two processes that start at the same moment may both begin, and then one of them ends at
its next update.
"""

import contextlib
import datetime
import functools
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from absl import logging
from etils import epath

from evonorms_jax.runs.files import is_local, naming
from evonorms_jax.runs.interrupt import exit_now

LOCK = "lock.json"
_BEAT = 5.0  # s between two updates
_LOST_AFTER = 45.0  # s
_SETTLE = 2.0  # s
_STARTED = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class WorkdirInUseError(OSError):
    """Another process holds the work directory. The message is one line that names it."""


class Holder(NamedTuple):
    """The process that holds a work directory."""

    host: str  # name of its machine
    pid: int  # its number there
    started: str  # its start, for people
    machine: str  # identifies the machine, since its start, and the name space of the number
    ticks: str  # start by the clock of the machine, which tells processes of one number apart

    def __str__(self):
        return f"process {self.pid} on {self.host}, started {self.started}"


class _Seen(NamedTuple):
    """The lock file at one moment. `holder` is None if the file is not whole."""

    text: str
    updated: int
    holder: Holder | None


@contextlib.contextmanager
def hold(workdir: epath.Path) -> Iterator[None]:
    """Holds a directory, which exists, for this process alone, or raises `WorkdirInUseError`."""
    path, me = workdir / LOCK, _myself()
    _acquire(path, me)
    done = threading.Event()
    keeper = threading.Thread(target=_keep, args=(path, me, done), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        with contextlib.suppress(OSError):
            if (seen := _look(path)) is not None and seen.holder == me:
                path.unlink()


def _acquire(path: epath.Path, me: Holder) -> None:
    while not _create(path, me):
        seen = _look(path)
        if seen is None:
            continue  # released in the meantime
        if (holder := _living(path, seen)) is not None:
            raise WorkdirInUseError(
                f"{path.parent} is in use by {holder}: end that process or choose another work directory; "
                f"if its machine is gone, delete {path}"
            )
        _evict(path, seen)


def _living(path: epath.Path, seen: _Seen) -> Holder | str | None:
    """The holder, if it is alive."""
    holder = seen.holder
    if holder is not None and holder.machine == _machine():
        return holder if _ticks(holder.pid) == holder.ticks else None
    name = holder or "an unknown process"
    logging.warning("%s names %s: waiting up to %g s for its next update", path, name, _LOST_AFTER)
    deadline = time.monotonic() + _LOST_AFTER
    while time.monotonic() < deadline:
        time.sleep(_BEAT / 10)
        now = _look(path)
        if now is None:
            return None
        if now != seen:
            return now.holder or name
    return None


def _evict(path: epath.Path, seen: _Seen) -> None:
    """Removes the lock of a dead process, unless another process was faster."""
    logging.warning("taking over %s from %s, which ended without leaving it", path, seen.holder)
    if not is_local(path):
        path.unlink(missing_ok=True)
        return
    aside = path.with_name(f"{LOCK}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        if aside.read_text() != seen.text:
            with contextlib.suppress(OSError):  # its holder creates it again at the next update
                os.link(aside, path)
        aside.unlink()


def _keep(path: epath.Path, me: Holder, done: threading.Event) -> None:
    """Updates the lock until `done`, and ends the process if the lock names another one."""
    updates = 0
    while not done.wait(_BEAT):
        updates += 1
        # An update that fails is no reason to end: the next one may succeed.
        with contextlib.suppress(OSError):
            seen = _look(path)
            if seen is None:
                _create(path, me)
            elif seen.holder not in (me, None):
                exit_now(f"{path.parent} was taken over by {seen.holder}: this process ends")
            elif is_local(path):
                os.utime(path)
            else:
                path.write_text(_text(me, updates))


def _create(path: epath.Path, me: Holder) -> bool:
    """Whether the lock is new and names this process now."""
    if not is_local(path):
        if path.exists():
            return False
        path.write_text(_text(me))
        time.sleep(_SETTLE)
        return (seen := _look(path)) is not None and seen.holder == me
    try:
        with naming(path), open(path, "x") as file:
            file.write(_text(me))
    except FileExistsError:
        return False
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _text(me: Holder, updates: int = 0) -> str:
    return json.dumps(me._asdict() | {"updates": updates}) + "\n"


def _look(path: epath.Path) -> _Seen | None:
    """The lock as it is now, if there is a file."""
    try:
        if is_local(path):
            with open(path) as file:  # opening asks a network file system for news
                text, updated = file.read(), os.fstat(file.fileno()).st_mtime_ns
        else:
            text, updated = path.read_text(), 0
    except FileNotFoundError:
        return None
    try:
        row = json.loads(text)
        return _Seen(text, updated, Holder(**{name: row[name] for name in Holder._fields}))
    except (ValueError, KeyError, TypeError):
        return _Seen(text, updated, None)


def _myself() -> Holder:
    pid = os.getpid()
    return Holder(socket.gethostname(), pid, _STARTED, _machine(), _ticks(pid) or "")


@functools.cache
def _machine() -> str:
    """Name of the machine, its start, and the name space of its processes, as far as the system tells."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _ticks(pid: int) -> str | None:
    """Start of a process of this machine, "" if the system does not tell it, None if it has ended."""
    if Path("/proc/self/stat").exists():
        try:
            state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "ZX" else rest[18]  # field 22 of proc_pid_stat(5)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it runs, and belongs to another user
    return ""
