"""The input pipeline of a stream: from prepared records to batches, with grain.

P side of the images in pixels, N pictures of a part, B global batch size, b = B / hosts. A place is a number
from 0 on in the endless global sequence of pictures: batch k has the places k B to (k + 1) B - 1. The image
at a place depends on the seed and the place alone, so the numbers of threads, processes and hosts and a
restart do not change it.

This module needs the extra `imagenet`.
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
from typing import NamedTuple, TypeVar

import grain
import jax
import numpy as np
from absl import flags, logging

from evonorms_jax.data import photographs
from evonorms_jax.data.photographs import Box, DamagedPictureError, decode_crop
from evonorms_jax.data.policies import Policy
from evonorms_jax.data.prepared import Records, open_prepared
from evonorms_jax.data.settings import DataSettings
from evonorms_jax.data.stream import Batch, Share, Stream, check_part, check_start
from evonorms_jax.errors import UserError

VALIDATION_SHARE = 100  # by default one training picture in so many validates; of ImageNet 12,811
STRETCH = 64  # the most pictures that a process hands over at once
MOST_DAMAGED = 100  # damaged pictures in a row, after which reading fails

_WARNING = threading.Lock()  # shared by all parts, since an object with a lock cannot be sent to a process


#: Function from a place to the number of a picture, 0 to N - 1: an endless sequence of permutations.
Order = Callable[[int], int]
Value = TypeVar("Value")
Samples = grain.MapDataset  # values by their place


class Sample(NamedTuple):
    """An image at its place. A batch has arrays `[b, ...]` of each."""

    image: np.ndarray  # uint8 [P, P, 3]
    label: np.int32
    weight: np.float32  # 1, or 0 for filling


def open_prepared_stream(name: str, settings: DataSettings, order_seed: int, share: Share) -> Stream:
    """Opens NAME[/CONFIG][:VERSION] of tfds; arguments and errors as `sources.open_stream`."""
    prepared = open_prepared(name, settings.data_dir)
    validation_size = settings.validation_size
    if validation_size is None:
        validation_size = max(1, prepared.counts["train"] // VALIDATION_SHARE)
    parts = {}
    for part, stored in prepared.parts(settings, validation_size=validation_size, least_validation=0).items():
        if_damaged = "the next one replaces it" if part == "train" else "not counted"
        records = prepared.records(stored.split)
        parts[part] = Pictures(records, stored.indices, prepared.num_classes, if_damaged)
    sizes = {part: len(pictures) for part, pictures in parts.items()}
    eval_size = settings.image_size or settings.crop
    samples = train_samples(parts["train"], settings.crop, settings.policy(), settings.flip, order_seed)
    read = functools.partial(batches, share=share, threads=settings.threads)

    def train_batches(batch_size, start=0):
        share.own(batch_size)
        check_start(start)
        return (Batch(*each[:2]) for each in read(samples, batch_size, start, workers=settings.workers))

    def eval_batches(part, batch_size):
        check_part(name, sizes, part)
        share.own(batch_size)
        return map(tuple, read(eval_samples(parts[part], eval_size, batch_size), batch_size, 0))

    return Stream(name, prepared.num_classes, sizes, eval_size, train_batches, eval_batches)


class Damage:
    """The damaged pictures of a part, each of which is reported once."""

    def __init__(self, name: str, consequence: str):
        """Takes the name of the part, and the consequence of damage, which completes the warning about it."""
        self._name, self._consequence = name, consequence
        self._known: set[int] = set()

    def pass_over(
        self, read: Callable[[int], Value], order: Callable[[int], int], place: int, count: int
    ) -> tuple[Value, int]:
        """The value of the first sound picture from a place on, and the number of damaged ones before it.

        Args:
            read: function from the number of a picture to a value, which raises `DamagedPictureError`.
            order: function from a place to the number of a picture.
            place: first place to try.
            count: N.

        Raises:
            UserError: if all pictures or a hundred in a row are damaged.
        """
        # Two permutations in a row contain a whole one, wherever they begin.
        tries = min(2 * count, MOST_DAMAGED)
        for passed_over in range(tries):
            number = order(place + passed_over)
            try:
                return read(number), passed_over
            except DamagedPictureError as error:
                self._warn(number, error)
        found = "all pictures are" if tries < MOST_DAMAGED else f"{tries} pictures in a row are"
        raise UserError(f"{self._name}: {found} damaged, the last is record {number}")

    def _warn(self, number: int, error: Exception) -> None:
        with _WARNING:
            known = number in self._known
            self._known.add(number)
        if not known:
            where = f"{self._name}, record {number}"
            logging.warning("%s is damaged, %s: %s", where, self._consequence, error)


class Pictures:
    """The N pictures of one part."""

    def __init__(self, records: Records, indices: np.ndarray, num_classes: int, if_damaged: str):
        """Reads no picture yet. The part has the records at `indices` `[N]`.

        `if_damaged` is the consequence of a damaged picture, which completes the warning about it.
        """
        self._records, self._indices, self._num_classes = records, indices, num_classes
        self._damage = Damage(records.name, if_damaged)

    def __len__(self) -> int:
        return len(self._indices)

    def read(
        self, order: Order, place: int, choose: Callable[[int, int], Box], size: int
    ) -> tuple[np.ndarray, int, int]:
        """The picture at a place. A damaged one is replaced by the next sound one in the order.

        Args:
            order: order of the pictures.
            place: first place to try.
            choose: function from height and width to the part of the picture that is seen.
            size: P.

        Returns:
            uint8 `[P, P, 3]`, its label, and the number of damaged pictures that were skipped.

        Raises:
            ValueError: if all pictures or a hundred in a row are damaged, a label is out of range, or a file
                is damaged.
        """

        def read(number):
            record = self._records[number]
            if not 0 <= record.label < self._num_classes:
                where = f"{self._records.name}, record {number}"
                raise UserError(f"{where}: label {record.label} is not in 0 to {self._num_classes - 1}")
            return decode_crop(record.encoded, choose, size), record.label

        def number(place):
            return int(self._indices[order(place)])

        (image, label), passed_over = self._damage.pass_over(read, number, place, len(self))
        return image, label, passed_over


def train_samples(
    pictures: Pictures, size: int, policy: Policy | None, flip: bool, seed: int
) -> Samples[Sample]:
    """An endless sequence of epochs, each a fresh permutation: random part, random flip, policy.

    An epoch begins where the last one ended, even within a batch, so that every picture is seen.
    """

    def sample(order, place, rng):
        choose = functools.partial(photographs.random_resized, rng)
        image, label, _ = pictures.read(order, place, choose, size)
        if flip and rng.random() < 0.5:
            image = image[:, ::-1]
        if policy is not None:
            image = policy(rng, image)
        return Sample(image, np.int32(label), np.float32(1))

    return shuffled(len(pictures), sample, seed)


def shuffled(
    count: int, sample: Callable[[Order, int, np.random.Generator], Value], seed: int
) -> Samples[Value]:
    """An endless sequence of epochs of `count` pictures, each a fresh permutation.

    `sample(order, place, rng)` makes a value. Its generator depends on the seed and the place alone, and its
    `order` gives the picture at a place.
    """
    # grain adds the number of the epoch to the first seed. Without the hash, nearby seeds would share epochs.
    order_seed, draw_seed = np.random.SeedSequence([seed, 1]).generate_state(2).tolist()
    order = grain.MapDataset.range(count).shuffle(order_seed).__getitem__
    draw = functools.partial(sample, order)
    return grain.MapDataset.range(sys.maxsize).random_map(draw, seed=draw_seed)


def eval_samples(pictures: Pictures, size: int, batch_size: int) -> Samples[Sample]:
    """The central square of every picture in order, then of the first ones again to fill the last batch.

    Filling has weight 0, and so has the picture that replaces a damaged one. Blank images cannot fill: a
    layer's output for them may not be finite, and zero times infinity is NaN.
    """
    count = len(pictures)
    choose = functools.partial(photographs.central, photographs.evaluated_share(size))

    def sample(place):
        image, label, passed_over = pictures.read(lambda place: place % count, place, choose, size)
        counts = place < count and not passed_over
        return Sample(image, np.int32(label), np.float32(counts))

    return filled(count, batch_size, sample)


def filled(count: int, batch_size: int, sample: Callable[[int], Value]) -> Samples[Value]:
    """`sample(place)` of all places from 0 to `count` - 1 and beyond, up to the end of the last batch."""
    return grain.MapDataset.range(-(-count // batch_size) * batch_size).map(sample)


def batches(
    samples: Samples[Value],
    batch_size: int,
    start: int,
    share: Share,
    threads: int,
    workers: int = 0,
) -> Iterator[Value]:
    """This host's share of the batches from number `start` on; reads up to two batches ahead.

    Args:
        samples: samples by place, named tuples of arrays; endless if there are workers.
        batch_size: B.
        start: number of the first batch.
        share: part of each batch that this host reads.
        threads: threads of each process that decode.
        workers: processes that decode; 0 means this one alone. Each imports the main module when it starts.
    """
    own, processes = share.own(batch_size), max(1, workers)
    stretch = math.gcd(own, STRETCH) if workers else own

    def place(index):
        # grain deals indices to its processes one by one and collects their results in turn, so each process
        # gets stretches of consecutive places.
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
            first, *others = taken
            yield first._make(map(np.concatenate, zip(*taken, strict=True))) if others else first
    finally:
        iterator.close()


def _in_processes(parts: grain.IterDataset[Value], workers: int, *, buffer: int) -> grain.IterDataset[Value]:
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads absl flags, which only a main of absl parses
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=buffer)
    return parts.mp_prefetch(options, worker_init_fn=functools.partial(_begin_worker, os.getpid()))


def _begin_worker(parent: int, worker: int, workers: int) -> None:
    """Leaves the devices and Ctrl-C to the parent process, and ends after it, even if it was killed."""
    del worker, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jax.config.update("jax_platforms", "cpu")  # a TPU serves one process only
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
