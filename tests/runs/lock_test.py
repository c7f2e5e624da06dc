"""One process for each work directory: who is refused, who takes over, and what is left behind."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from evonorms_jax.runs import lock
from evonorms_jax.runs.lock import LOCK, WorkdirInUseError, hold

HOLDING = """
import sys, time
from etils import epath
from evonorms_jax.runs.lock import hold
with hold(epath.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def quickly(monkeypatch):
    """Updates, and patience with those of others, are a matter of milliseconds."""
    monkeypatch.setattr(lock, "_BEAT", 0.02)
    monkeypatch.setattr(lock, "_LOST_AFTER", 0.1)
    monkeypatch.setattr(lock, "_SETTLE", 0.0)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the directory."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def lock_file(workdir):
    return json.loads((workdir / LOCK).read_text())


def write_lock(workdir, **changes):
    """A lock of this process with changes."""
    (workdir / LOCK).write_text(json.dumps(lock._myself()._asdict() | changes))


def test_a_second_process_is_refused_and_told_which_one_holds_the_directory(tmp_path, holder):
    named = lock_file(tmp_path)
    with pytest.raises(WorkdirInUseError) as caught, hold(epath.Path(tmp_path)):
        pass
    expected = (
        f"{tmp_path} is in use by process {holder.pid} on {named['host']}, started {named['started']}: "
    )
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)
    assert lock_file(tmp_path) == named


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, holder, monkeypatch):
    """Before its parent has asked how it ended, too."""
    monkeypatch.setattr(lock, "_LOST_AFTER", 1e9)
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
    with hold(epath.Path(tmp_path)):
        assert lock_file(tmp_path)["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_number_that_another_process_has_now_is_not_taken_for_the_holder(tmp_path):
    write_lock(tmp_path, ticks="1")
    with hold(epath.Path(tmp_path)):
        assert lock_file(tmp_path)["ticks"] != "1"


def test_it_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), hold(epath.Path(tmp_path)):
        1 / 0  # noqa: B018
    with hold(epath.Path(tmp_path)):
        pass
    assert not list(tmp_path.iterdir())


def keep_alive(workdir, done):
    """Updates a lock as its holder on another machine would."""
    number = 0
    while not done.wait(0.02):
        number += 1
        os.utime(workdir / LOCK, ns=(number, number))


def test_a_holder_on_another_machine_is_known_by_its_updates(tmp_path, quickly, monkeypatch):
    monkeypatch.setattr(lock, "_LOST_AFTER", 600.0)
    write_lock(tmp_path, host="elsewhere", machine="elsewhere 1", pid=1)
    done = threading.Event()
    other = threading.Thread(target=keep_alive, args=(tmp_path, done))
    other.start()
    try:
        message = rf"in use by process 1 on elsewhere, .*if its machine is gone, delete .*{LOCK}$"
        with pytest.raises(WorkdirInUseError, match=message), hold(epath.Path(tmp_path)):
            pass
    finally:
        done.set()
        other.join()
    monkeypatch.setattr(lock, "_LOST_AFTER", 0.1)
    with hold(epath.Path(tmp_path)):
        assert lock_file(tmp_path)["pid"] == os.getpid()


@pytest.mark.parametrize("text", ["", '{"host": "a"'])
def test_a_lock_that_was_never_completed_is_taken_over(tmp_path, quickly, text):
    (tmp_path / LOCK).write_text(text)
    with hold(epath.Path(tmp_path)):
        assert lock_file(tmp_path)["pid"] == os.getpid()


def test_of_two_that_take_over_the_slower_one_leaves_the_lock_to_the_other(tmp_path):
    path = epath.Path(tmp_path) / LOCK
    write_lock(tmp_path, ticks="1")
    seen = lock._look(path)
    write_lock(tmp_path, ticks="2")
    lock._evict(path, seen)
    assert lock_file(tmp_path)["ticks"] == "2" and len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def bucket(monkeypatch):
    files = MemoryFileSystem(skip_instance_cache=True)
    monkeypatch.setattr(backend._FileSystemSpecBackend, "_get_filesystem", lambda *_: files)
    folder = epath.Path(f"gs://bucket/{os.getpid()}")
    yield folder
    folder.rmtree(missing_ok=True)


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_process_that_was_taken_over_ends(place, request, tmp_path, quickly, monkeypatch):
    """As one that was suspended for a while finds it."""
    workdir = epath.Path(tmp_path) if place == "folder" else request.getfixturevalue("bucket")
    reasons, ended = [], threading.Event()
    monkeypatch.setattr(lock, "exit_now", lambda reason: (reasons.append(reason), ended.set()))
    with hold(workdir):
        (workdir / LOCK).write_text(json.dumps(lock._myself()._replace(host="elsewhere", pid=7)._asdict()))
        assert ended.wait(60)
    assert reasons[0].startswith(f"{workdir} was taken over by process 7 on elsewhere, started ")
    assert (workdir / LOCK).exists(), "it is not this process's to remove"


def test_a_bucket(bucket, quickly):
    with hold(bucket):
        # Of this machine, so that the process is looked at and no update is waited for.
        with pytest.raises(WorkdirInUseError, match=r"^gs://bucket/\d+ is in use by "), hold(bucket):
            pass
        first = (bucket / LOCK).read_text()
        while (bucket / LOCK).read_text() == first:
            pass
    assert not (bucket / LOCK).exists()
    other = lock._myself()._replace(host="elsewhere", machine="elsewhere 1")
    (bucket / LOCK).write_text(lock._text(other))
    with hold(bucket):
        assert json.loads((bucket / LOCK).read_text())["machine"] != other.machine
