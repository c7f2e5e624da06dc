"""A disk that is full: every writer says which file it could not write, and goes on once there is room.

A limit on the size of files stands in for the disk: the system refuses a write that exceeds it.
"""

import contextlib
import errno
import gc
import resource

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from evonorms_jax.evolution.archive import Archive
from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.runs.files import write_whole
from evonorms_jax.runs.metrics import JsonLines, Scalars
from evonorms_jax.search_space import CATALOG


@contextlib.contextmanager
def limit(size):
    """No file can grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def full(name, size=2000):
    """Beyond `size` bytes nothing can be written, and the error has the path of the file and its cause."""
    with pytest.raises(OSError) as caught, limit(size):
        yield
    assert caught.value.errno == errno.EFBIG and name in str(caught.value.filename)
    assert "File too large" in str(caught.value)


def test_a_file_stays_as_it_was(tmp_path):
    path = epath.Path(tmp_path / "table.json")
    write_whole(path, "before")
    with full("table.json"):
        write_whole(path, "x" * 10_000)
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_lines_of_json(tmp_path):
    lines = JsonLines(tmp_path / "metrics.jsonl", step=0)
    lines.write(1, {"loss": 1.0})
    lines.flush()
    for step in range(2, 500):
        lines.write(step, {"loss": 1.0})
    with full("metrics.jsonl"):
        lines.flush()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 1.0}\n'


# tensorboardX leaves its file open if the end of it cannot be written.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_scalars(tmp_path):
    with full("tensorboard"), Scalars(tmp_path / "tensorboard", step=0) as scalars:
        for step in range(500):
            scalars.write(step, {"loss": 1.0})
        scalars.flush()
    del scalars
    gc.collect()


def arrays(seed):
    return {"kernel": np.random.default_rng(seed).random(100_000)}


@pytest.mark.parametrize("background", [False, True])
def test_a_checkpoint(tmp_path, background):
    """The last one stays, and the next process replaces what is left of the one that was not completed."""
    with full("run/2", size=300_000), Checkpoints(tmp_path / "run", background=background) as checkpoints:
        checkpoints.save(1, record={"step": 1}, arrays={"kernel": jnp.zeros(1000)})
        checkpoints.save(2, record={"step": 2}, arrays=arrays(2))
    with Checkpoints(tmp_path / "run", background=background) as checkpoints:
        assert checkpoints.restore().step == 1
        checkpoints.save(2, record={"step": 2}, arrays=arrays(2))
        restored = checkpoints.restore()
    np.testing.assert_array_equal(restored.arrays["kernel"], arrays(2)["kernel"])


@pytest.mark.parametrize("size", [0, 200, 1000])
def test_the_first_checkpoint(tmp_path, size):
    """Nothing was saved yet, so that the next process starts from the beginning."""
    with full("run/1", size), Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(1, record={"step": "x" * 10_000})
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.restore() is None
        checkpoints.save(1, record={"step": 1})
        assert checkpoints.restore().record == {"step": 1}


def records(start, stop):
    proposal = Proposal(CATALOG["evonorm_s0"], "random")
    return [Record(index, proposal, Evaluation("inert", {})) for index in range(start, stop)]


def test_the_history_of_a_search(tmp_path):
    with full("history.jsonl"), Archive(epath.Path(tmp_path), 3) as archive:
        archive.restore()
        archive.append(records(0, 2))
        archive.append(records(2, 50))
    with Archive(epath.Path(tmp_path), 3) as archive:
        history = archive.restore()
        assert 2 <= len(history) < 50 and list(history) == records(0, len(history))
        rest = records(len(history), 50)
        archive.append(rest)
        with full("top_layers.json", size=10):
            archive.checkpoint(History(records(0, 50)))
