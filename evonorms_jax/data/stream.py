"""Data sets of photographs that do not fit into memory: ImageNet, and any like it, read as they are needed.

P side of the images in pixels, B global batch size, b = B / hosts what one host gets of it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from evonorms_jax.errors import UserError

CHANNELS = 3
# Published for ImageNet, in grey levels; other photographs have much the same.
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32) * 255


class Share(NamedTuple):
    """Which pictures of a batch are this host's: b in a row, so that all shares in order are the batch.

    So it is on a mesh whose devices go host by host. On another, a batch is the same images in another order.
    """

    host: int  # from 0
    hosts: int

    def first(self, batch_size: int, number: int) -> int:
        """The place of the first one of batch `number` in the endless sequence of all batches."""
        return number * batch_size + self.host * (batch_size // self.hosts)


class Batch(NamedTuple):
    """Images of this host to train on."""

    images: np.ndarray  # uint8 [b, P, P, 3]
    labels: np.ndarray  # int32 [b], 0 to num_classes - 1


EvalBatch = tuple[np.ndarray, np.ndarray, np.ndarray]  # images and labels as in Batch; weights, float32 [b]


class Stream:
    """A data set whose pictures are read as they are needed; `open_stream` makes one.

    Attributes:
        name: of the set.
        num_classes: labels are below that.
        sizes: pictures of "train", "validation" and "test".
        image_size: side of the images to train on.
        eval_size: side of the images to evaluate on.
        hosts: how many share a batch.
        mean: float32 `[3]`, ImageNet's, in grey levels from 0 to 255.
        std: float32 `[3]`, likewise.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        sizes: Mapping[str, int],
        *,
        image_size: int,
        eval_size: int,
        hosts: int,
        train: Callable[[int, int], Iterator[Batch]],
        evaluate: Callable[[str, int], Iterator[EvalBatch]],
    ):
        """Takes what reads: `train(batch_size, start)` and `evaluate(part, batch_size)`."""
        self.name, self.num_classes, self.sizes = name, num_classes, dict(sizes)
        self.image_size, self.eval_size, self.hosts = image_size, eval_size, hosts
        self.mean, self.std = MEAN, STD
        self._train, self._evaluate = train, evaluate

    def train_batches(self, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """This host's share of the batches from number `start` on, without end.

        Batch k is the same whatever was read before it and with any number of threads, and the shares of all
        hosts, one after the other, are the same batch for any number of hosts. Epochs are fresh permutations
        and follow one another within a batch.

        Args:
            batch_size: B.
            start: number of the first batch, from 0.

        Raises:
            ValueError: if the hosts cannot share a batch or `start` is negative; in the course of reading, if
                no picture can be decoded or a label is out of range.
        """
        self._check_batch_size(batch_size)
        if start < 0:
            raise UserError(f"start must be at least 0, got {start}")
        return self._train(batch_size, start)

    def eval_batches(self, part: str, batch_size: int) -> Iterator[EvalBatch]:
        """This host's share of all images of a part, each once: images, labels, weights.

        All hosts get the same number of batches. What fills the last one has weight 0, and so has what stands
        in the place of a damaged picture.

        Raises:
            ValueError: for an unknown or empty part; else as `train_batches`.
        """
        if part not in self.sizes:
            raise UserError(f"{self.name} has no part {part!r}, only {', '.join(self.sizes)}")
        if not self.sizes[part]:
            hint = ": give validation_size" if part == "validation" else ""
            raise UserError(f"the {part} part of {self.name} is empty{hint}")
        self._check_batch_size(batch_size)
        return self._evaluate(part, batch_size)

    def _check_batch_size(self, batch_size: int) -> None:
        if batch_size < 1 or batch_size % self.hosts:
            raise UserError(
                f"batch_size must be a multiple of the number of hosts, {self.hosts}, got {batch_size}"
            )
