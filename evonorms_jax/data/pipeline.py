"""From records to batches with grain: which picture comes when, and what happens to it.

P side of the images in pixels, N pictures of a part, B global batch size, b = B / hosts. A place is a number
from 0 on in the endless global sequence of pictures: batch k has the places k B to (k + 1) B - 1. What is at
a place is a function of the seed and the place, so threads, processes, hosts and restarts change nothing.

Needs the extra `imagenet`.
"""

import functools
import itertools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import grain
import jax
import numpy as np
from absl import flags, logging

from evonorms_jax.data import photographs
from evonorms_jax.data.photographs import Box, DamagedPictureError, decode_crop
from evonorms_jax.data.policies import Policy
from evonorms_jax.data.prepared import Records
from evonorms_jax.data.stream import Share
from evonorms_jax.errors import UserError

STRETCH = 64  # pictures at most that a process hands over at once
MOST_DAMAGED = 100  # pictures in a row, after which no more are tried


_WARNING = threading.Lock()  # of all parts: one of their own could not be sent to another process


class Sample(NamedTuple):
    """An image at its place; a batch has arrays `[b, ...]` of each."""

    image: np.ndarray  # uint8 [P, P, 3]
    label: np.int32
    weight: np.float32  # 1, or 0 for filling


class Pictures:
    """The N pictures of one part."""

    def __init__(self, records: Records, indices: np.ndarray, num_classes: int, if_damaged: str):
        """Reads nothing yet.

        Args:
            records: of the split that the part is in.
            indices: `[N]`, of the records of the part.
            num_classes: labels are below that.
            if_damaged: what the warning about a damaged picture says will happen.
        """
        self._records, self._indices, self._num_classes = records, indices, num_classes
        self._if_damaged = if_damaged
        self._damaged: set[int] = set()

    def __len__(self) -> int:
        return len(self._indices)

    def read(
        self, order: Callable[[int], int], place: int, choose: Callable[[int, int], Box], size: int
    ) -> tuple[np.ndarray, int, int]:
        """The picture at a place, or, where that is damaged, the next one in the order that is not.

        Args:
            order: place to number of the picture, 0 to N - 1; an endless sequence of permutations.
            place: where to begin.
            choose: height and width to the part that is seen.
            size: P.

        Returns:
            uint8 `[P, P, 3]`, its label, and how many damaged ones were passed over.

        Raises:
            ValueError: if all are damaged, or a hundred in a row; if a label is out of range.
        """
        # Two permutations in a row hold a whole one, wherever they begin.
        tries = min(2 * len(self), MOST_DAMAGED)
        for passed_over in range(tries):
            number = int(self._indices[order(place + passed_over)])
            record = self._records[number]
            if not 0 <= record.label < self._num_classes:
                where = f"{self._records.name}, record {number}"
                raise UserError(f"{where}: label {record.label} is not in 0 to {self._num_classes - 1}")
            try:
                return decode_crop(record.encoded, choose, size), record.label, passed_over
            except DamagedPictureError as error:
                self._warn(number, error)
        found = "all pictures are" if tries < MOST_DAMAGED else f"{tries} pictures in a row are"
        raise UserError(f"{self._records.name}: {found} damaged, the last is record {number}")

    def _warn(self, number: int, error: Exception) -> None:
        with _WARNING:
            known = number in self._damaged
            self._damaged.add(number)
        if not known:
            where = f"{self._records.name}, record {number}"
            logging.warning("%s is damaged, %s: %s", where, self._if_damaged, error)


def train_samples(
    pictures: Pictures, size: int, policy: Policy | None, flip: bool, seed: int
) -> grain.MapDataset[Sample]:
    """An endless sequence of epochs, each a fresh permutation: random part, random flip, policy.

    An epoch goes on where the last one ended, within a batch if need be: no picture is left out.
    """
    # grain adds the number of the epoch to the first seed. Hashed, nearby seeds share no epoch.
    order_seed, draw_seed = np.random.SeedSequence([seed, 1]).generate_state(2).tolist()
    order = grain.MapDataset.range(len(pictures)).shuffle(order_seed)

    def sample(place, rng):
        choose = functools.partial(photographs.random_resized, rng)
        image, label, _ = pictures.read(order.__getitem__, place, choose, size)
        if flip and rng.random() < 0.5:
            image = image[:, ::-1]
        if policy is not None:
            image = policy(rng, image)
        return Sample(image, np.int32(label), np.float32(1))

    # The generator depends on the seed and the place alone.
    return grain.MapDataset.range(sys.maxsize).random_map(sample, seed=draw_seed)


def eval_samples(pictures: Pictures, size: int, batch_size: int) -> grain.MapDataset[Sample]:
    """Every picture once and in order, its central square; then the first ones again to fill the last batch.

    Filling has weight 0, and so has a damaged picture, in whose place comes the next one: what a layer makes
    of a blank image may not be finite, and zero times that is not zero.
    """
    count = len(pictures)
    choose = functools.partial(photographs.central, photographs.evaluated_share(size))

    def sample(place):
        image, label, passed_over = pictures.read(lambda place: place % count, place, choose, size)
        counts = place < count and not passed_over
        return Sample(image, np.int32(label), np.float32(counts))

    return grain.MapDataset.range(-(-count // batch_size) * batch_size).map(sample)


def batches(
    samples: grain.MapDataset[Sample],
    batch_size: int,
    start: int,
    share: Share,
    threads: int,
    workers: int = 0,
) -> Iterator[Sample]:
    """This host's share of the batches from number `start` on; reads up to two batches ahead.

    Args:
        samples: by place; endless if there are workers.
        batch_size: B.
        start: number of the first batch.
        share: of this host.
        threads: that decode, of each process.
        workers: processes; 0 is this one alone. Each imports the main module anew when it starts.
    """
    own, processes = batch_size // share.hosts, max(1, workers)
    stretch = math.gcd(own, STRETCH) if workers else own

    def place(index):
        # grain deals indices to its processes one by one and takes what they made in turn, so each is given
        # stretches that lie in a row.
        turn, process = divmod(index, processes)
        turn, offset = divmod(turn, stretch)
        batch, within = divmod((turn * processes + process) * stretch + offset, own)
        return share.first(batch_size, start + batch) + within

    mine = grain.MapDataset.range(len(samples) // share.hosts).map(lambda index: samples[place(index)])
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, 2 * own // processes))
    parts = mine.to_iter_dataset(options).batch(stretch)
    if workers:
        parts = _in_processes(parts, workers, buffer=max(1, own // (stretch * workers)))
    iterator = iter(parts)
    try:
        while taken := list(itertools.islice(iterator, own // stretch)):
            yield taken[0] if len(taken) == 1 else Sample(*map(np.concatenate, zip(*taken, strict=True)))
    finally:
        iterator.close()


def _in_processes(
    parts: grain.IterDataset[Sample], workers: int, *, buffer: int
) -> grain.IterDataset[Sample]:
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads some, which only a main of absl parses
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=buffer)
    return parts.mp_prefetch(options, worker_init_fn=functools.partial(_begin_worker, os.getpid()))


def _begin_worker(parent: int, worker: int, workers: int) -> None:
    """Leaves the devices and Ctrl-C to the parent, and ends when that has ended, however it has."""
    del worker, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jax.config.update("jax_platforms", "cpu")  # were any touched, a TPU has one process only
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
