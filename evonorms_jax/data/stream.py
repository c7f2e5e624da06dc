"""Data sets of photographs that do not fit into memory: ImageNet, and any like it, read as they are needed.

P side of the images in pixels, B global batch size, b = B / hosts what one host gets of it.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from evonorms_jax.data import splits
from evonorms_jax.data.policies import AutoAugment, Policy, RandAugment
from evonorms_jax.data.prepared import Prepared, open_prepared
from evonorms_jax.data.sources import TFDS_PREFIX

AUGMENT = ("none", "randaugment", "autoaugment")
VALIDATION_SHARE = 100  # one picture in so many, unless a size is given; of ImageNet 12,811
# Published for ImageNet, in grey levels; other photographs have much the same.
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD = np.array([0.229, 0.224, 0.225], np.float32) * 255


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
        hosts together are the same images for any number of hosts. Epochs are fresh permutations and follow
        one another within a batch.

        Args:
            batch_size: B.
            start: number of the first batch, from 0.

        Raises:
            ValueError: if the hosts cannot share a batch or `start` is negative; in the course of reading, if
                no picture can be decoded or a label is out of range.
        """
        self._check_batch_size(batch_size)
        if start < 0:
            raise ValueError(f"start must be at least 0, got {start}")
        return self._train(batch_size, start)

    def eval_batches(self, part: str, batch_size: int) -> Iterator[EvalBatch]:
        """This host's share of all images of a part, each once: images, labels, weights.

        All hosts get the same number of batches. What fills the last one has weight 0, and so has what stands
        in the place of a damaged picture.

        Raises:
            ValueError: for an unknown or empty part; else as `train_batches`.
        """
        if part not in self.sizes:
            raise ValueError(f"{self.name} has no part {part!r}, only {', '.join(self.sizes)}")
        if not self.sizes[part]:
            hint = ": give validation_size" if part == "validation" else ""
            raise ValueError(f"the {part} part of {self.name} is empty{hint}")
        self._check_batch_size(batch_size)
        return self._evaluate(part, batch_size)

    def _check_batch_size(self, batch_size: int) -> None:
        if batch_size < 1 or batch_size % self.hosts:
            raise ValueError(
                f"batch_size must be a multiple of the number of hosts, {self.hosts}, got {batch_size}"
            )


def open_stream(
    source: str,
    *,
    image_size: int,
    eval_size: int | None = None,
    augment: str = "none",
    randaugment: RandAugment = RandAugment(),
    flip: bool = True,
    train_size: int | None = None,
    validation_size: int | None = None,
    data_dir: str | None = None,
    seed: int = 0,
    order_seed: int = 0,
    threads: int = 16,
    host: int = 0,
    hosts: int = 1,
) -> Stream:
    """Opens a data set without reading its pictures.

    Training sees a random part of a picture, mirrored or not, and then the policy; evaluation the central
    square. Everything is converted to three channels.

    The test part is the published split `test` if that has labels, or else `validation`, as of ImageNet, or
    else a tenth of `train`. The validation part is always cut out of `train`, so that choosing by it never
    looks at what is published as validation or test.

    Args:
        source: `tfds:NAME[/CONFIG][:VERSION]`, an image classification set that tensorflow_datasets has
            prepared as array_record, such as `tfds:imagenet2012`.
        image_size: P in training.
        eval_size: P in evaluation; None is `image_size`.
        augment: "none", "randaugment" or "autoaugment", for training.
        randaugment: its number of operations and their magnitude.
        flip: whether half of the images are mirrored in training.
        train_size: pictures to train on; None is all that the other parts leave.
        validation_size: pictures to validate on; None is a hundredth of `train`; 0 for training on all of it.
        data_dir: folder of tfds; None is $TFDS_DATA_DIR, or else `~/tensorflow_datasets`.
        seed: of the split into train and validation.
        order_seed: of the order of training, of crops, flips and the policy.
        threads: that read and decode.
        host: number of this one, from 0.
        hosts: how many share the batches.

    Raises:
        ModuleNotFoundError: if the extra `imagenet` is not installed.
        DataNotFoundError: the data are not there; the message says what to run.
        ValueError: a setting out of range, sizes that do not fit, no image classification data.
    """
    try:
        # Here, since only streaming needs them; the extra `imagenet` brings them.
        from evonorms_jax.data import pipeline
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"streaming pictures needs {error.name}: pip install 'evonorms-jax[imagenet]'", name=error.name
        ) from error
    if not source.startswith(TFDS_PREFIX):
        raise ValueError(f"pictures are streamed from {TFDS_PREFIX}NAME only, got {source!r}")
    eval_size = image_size if eval_size is None else eval_size
    for name, value in {"image_size": image_size, "eval_size": eval_size, "threads": threads}.items():
        if value is None or value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= host < hosts:
        raise ValueError(f"host must be from 0 to {hosts - 1}, the number of hosts less 1, got {host}")
    policy = _policy(augment, randaugment)
    prepared = open_prepared(source.removeprefix(TFDS_PREFIX), data_dir)
    parts = {
        part: pipeline.Pictures(
            prepared.records(split),
            indices,
            prepared.num_classes,
            "the next one takes its place" if part == "train" else "not counted",
        )
        for part, (split, indices) in _parts(prepared, train_size, validation_size, seed).items()
    }
    share = pipeline.Share(host, hosts)

    def train(batch_size, start):
        samples = pipeline.train_samples(parts["train"], image_size, policy, flip, order_seed)
        for images, labels, _ in pipeline.batches(samples, batch_size, start, share, threads):
            yield Batch(images, labels)

    def evaluate(part, batch_size):
        samples = pipeline.eval_samples(parts[part], eval_size, batch_size)
        for batch in pipeline.batches(samples, batch_size, 0, share, threads):
            yield tuple(batch)

    return Stream(
        source.removeprefix(TFDS_PREFIX),
        prepared.num_classes,
        {part: len(pictures) for part, pictures in parts.items()},
        image_size=image_size,
        eval_size=eval_size,
        hosts=hosts,
        train=train,
        evaluate=evaluate,
    )


def _policy(augment: str, randaugment: RandAugment) -> Policy | None:
    if augment not in AUGMENT:
        near = difflib.get_close_matches(augment, AUGMENT, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        raise ValueError(f"unknown augment {augment!r}{hint} there are {', '.join(AUGMENT)}")
    return {"none": None, "randaugment": randaugment, "autoaugment": AutoAugment()}[augment]


def _parts(
    prepared: Prepared, train_size: int | None, validation_size: int | None, seed: int
) -> dict[str, tuple[str, np.ndarray]]:
    """Split and numbers of the records of "train", "validation" and "test"."""
    count = prepared.counts["train"]
    published = _test_split(prepared)
    if validation_size is None:
        validation_size = max(1, count // VALIDATION_SHARE)
    cut = splits.partition(
        count,
        train_size=train_size,
        validation_size=validation_size,
        seed=seed,
        cut_test=published is None,
        least_validation=0,
    )
    test = ("train", cut.test) if published is None else (published, np.arange(prepared.counts[published]))
    return {"train": ("train", cut.train), "validation": ("train", cut.validation), "test": test}


def _test_split(prepared: Prepared) -> str | None:
    """The published split to test on. That of ImageNet called `test` has -1 for every label."""
    for split in ("test", "validation"):
        if prepared.counts.get(split) and prepared.records(split)[0].label >= 0:
            return split
    return None
