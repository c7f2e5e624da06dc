"""Pictures read by several processes give the same batches, and leave devices and signals alone."""

import itertools
import os
import signal

import numpy as np
import pytest
from jax._src import xla_bridge  # JAX has no public test of whether devices were touched
from support.data_sets import examples

from evonorms_jax import data
from evonorms_jax.data import pipeline
from evonorms_jax.data.prepared import open_prepared
from evonorms_jax.data.stream import Share
from experiments.benchmarks.prepared_set import write_set

SIDE = 16
BATCH = 12  # of two hosts: three stretches of two pictures each


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    photos = examples(24, {1: "grey", 4: "cmyk", 17: "truncated"})
    write_set(root, "photos", {"train": photos}, num_classes=3)
    write_set(root, "damaged", {"train": [(b"no picture", 0)]}, num_classes=3)
    return str(root)


def take(count, start, prepared, **settings):
    settings |= {"crop": SIDE, "flip": True, "augment": "randaugment", "data_dir": prepared}
    stream = data.open_stream(data.DataSettings("tfds:photos", **settings), share=data.Share(1, 2))
    batches = stream.train_batches(BATCH, start)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.exhaustive), 2])
def test_processes_change_nothing_and_a_resumed_stream_goes_on_exactly(prepared, workers):
    whole = take(6, 0, prepared, threads=3)
    resumed = take(4, 2, prepared, threads=2, workers=workers)
    for batch, again in zip(whole[2:], resumed, strict=True):
        np.testing.assert_array_equal(batch.images, again.images)
        np.testing.assert_array_equal(batch.labels, again.labels)


def look(sample):
    """In the place of an image: which process it is, whether it has devices, whether it ignores Ctrl-C."""
    ignores = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return sample._replace(image=np.array([os.getpid(), xla_bridge.backends_are_initialized(), ignores]))


def test_processes_leave_devices_and_ctrl_c_to_the_main_one(prepared):
    pictures = pipeline.Pictures(open_prepared("photos", prepared).records("train"), np.arange(9), 3, "")
    samples = pipeline.train_samples(pictures, SIDE, None, True, 0).map(look)
    batches = pipeline.batches(samples, 4, 0, Share(0, 1), 1, workers=2)
    process, devices, ignores = np.concatenate([next(batches).image for _ in range(3)]).T
    batches.close()
    assert len(set(process)) == 2 and os.getpid() not in process
    assert not devices.any() and ignores.all()


def test_what_a_process_cannot_read_is_told_here(prepared):
    settings = {"crop": SIDE, "validation_size": 0, "data_dir": prepared, "workers": 1}
    batches = data.open_stream(data.DataSettings("tfds:damaged", **settings)).train_batches(1)
    with pytest.raises(ValueError, match=r"^damaged/1.0.0, train: all pictures are damaged, the last is rec"):
        next(batches)
