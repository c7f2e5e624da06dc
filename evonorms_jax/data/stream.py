"""Streams: data sets of photographs that are read during the training, such as ImageNet.

P side of the images in pixels, B global batch size, b = B / hosts the images of a batch that one host gets.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from evonorms_jax.errors import UserError

CHANNELS = 3
# Published for ImageNet, in grey levels; other photographs have similar ones.
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32) * 255


class Batch(NamedTuple):
    """Images of this host to train on."""

    images: np.ndarray  # uint8 [b, P, P, 3]
    labels: np.ndarray  # int32 [b], 0 to num_classes - 1


EvalBatch = tuple[np.ndarray, np.ndarray, np.ndarray]  # images and labels as in Batch; weights, float32 [b]


class Stream(NamedTuple):
    """A data set that is read during the training, as a record of two functions; `open_stream` makes one.

    Attributes:
        name: name of the data set.
        num_classes: number of classes; labels are below it.
        sizes: number of pictures in "train", "validation" and "test".
        eval_size: side of the images to evaluate on.
        mean: float32 `[3]`, ImageNet's, in grey levels from 0 to 255.
        std: float32 `[3]`, likewise.
        train_batches: `(batch_size, start) -> Iterator[Batch]`, this host's share of the batches from number
            `start` on, without end. Batch k does not depend on earlier reads or on the number of threads,
            processes and hosts: the shares of all hosts in order are the batch. Each epoch is a fresh
            permutation, and the next one begins within the same batch. Raises `ValueError` if the hosts
            cannot share a batch, `start` is negative, a label is out of range, a file is damaged, or no
            picture can be decoded.
        eval_batches: `(part, batch_size) -> Iterator[EvalBatch]`, this host's share of all images of a part,
            each once. All hosts get the same number of batches. Filling of the last batch and the
            replacement of a damaged picture have weight 0. Raises `ValueError` as `train_batches`, and for
            an unknown or empty part.
    """

    name: str
    num_classes: int
    sizes: Mapping[str, int]
    eval_size: int
    train_batches: Callable[..., Iterator[Batch]]
    eval_batches: Callable[..., Iterator[EvalBatch]]
    mean: np.ndarray = MEAN
    std: np.ndarray = STD


class Share(NamedTuple):
    """This host's part of every batch: b pictures in a row, so that all shares in order are the batch.

    This holds on a mesh whose devices go host by host. On another mesh the images of a batch are the same, in
    another order.
    """

    host: int = 0
    hosts: int = 1

    def check(self) -> None:
        """Raises `ValueError` unless the host is one of the hosts."""
        if not 0 <= self.host < self.hosts:
            limit = f"from 0 to {self.hosts - 1}, the number of hosts less 1"
            raise UserError(f"host must be {limit}, got {self.host}")

    def own(self, batch_size: int) -> int:
        """b of a global batch size. Raises `ValueError` if the hosts cannot share a batch evenly."""
        if batch_size < 1 or batch_size % self.hosts:
            limit = f"a multiple of the number of hosts, {self.hosts}"
            raise UserError(f"batch_size must be {limit}, got {batch_size}")
        return batch_size // self.hosts

    def first(self, batch_size: int, number: int) -> int:
        """The place of the first picture of batch `number` in the endless sequence of all batches."""
        return number * batch_size + self.host * (batch_size // self.hosts)


def check_start(start: int) -> None:
    """Raises `ValueError` unless `start` can be the number of a batch."""
    if start < 0:
        raise UserError(f"start must be at least 0, got {start}")


def check_part(name: str, sizes: Mapping[str, int], part: str) -> None:
    """Raises `ValueError` unless the data set called `name` has pictures in `part`."""
    if part not in sizes:
        raise UserError(f"{name} has no part {part!r}, only {', '.join(sizes)}")
    if not sizes[part]:
        hint = ": give validation_size" if part == "validation" else ""
        raise UserError(f"the {part} part of {name} is empty{hint}")
