"""The data sets by name."""

import difflib
import functools
import math

import numpy as np

from evonorms_jax.data import image_set, synthetic
from evonorms_jax.data.embedded import read_mnist5k
from evonorms_jax.data.image_set import ImageData, Request
from evonorms_jax.data.policies import AutoAugment, Policy, RandAugment
from evonorms_jax.data.prepared import Prepared, open_prepared, read_tfds
from evonorms_jax.data.stream import Batch, Share, Stream
from evonorms_jax.data.synthetic import parse_kind, read_synthetic
from evonorms_jax.errors import UserError

TFDS_PREFIX = "tfds:"
SYNTHETIC_PREFIX = "synthetic:"
SOURCES = {
    "cifar10": functools.partial(read_tfds, "cifar10"),
    "mnist5k": read_mnist5k,
    "synthetic": read_synthetic,
}


def load(
    source: str,
    *,
    train_size: int | None = None,
    validation_size: int | None = None,
    image_size: int | None = None,
    data_dir: str | None = None,
    seed: int = 0,
    with_test: bool = False,
) -> ImageData:
    """Reads a data set into memory.

    Args:
        source: `mnist5k`, `cifar10`, `synthetic`, `synthetic:CLASSESxCHANNELS` for other than four
            classes and one channel, or `tfds:NAME[/CONFIG][:VERSION]` for any image
            classification set that tensorflow_datasets has prepared as array_record. Where a set
            has no test part, a tenth of it becomes one.
        train_size: images to train on; None is all that the other parts leave.
        validation_size: images to validate on; None is a tenth of all (of `synthetic`, 128).
        image_size: resizes to this side after a central square crop; None keeps the stored size.
        data_dir: folder of tfds; None is $TFDS_DATA_DIR, or else `~/tensorflow_datasets`. Others do
            not look at it.
        seed: from 0; of the split into train and validation; the test part is the same for every seed.
        with_test: whether the test part is read. A search leaves this alone.

    Returns:
        `ImageData`; its `test` is None unless `with_test`.

    Raises:
        ValueError: unknown source, sizes that do not fit, no image classification data.
        DataNotFoundError: the data are not there; the message says what to run.
    """
    request = Request(train_size, validation_size, image_size, data_dir, seed, with_test)
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size must be at least 1, got {image_size}")
    if seed < 0:
        raise UserError(f"data.seed must be at least 0, got {seed}")
    if source.startswith(TFDS_PREFIX):
        return read_tfds(source.removeprefix(TFDS_PREFIX), request)
    if source.startswith(SYNTHETIC_PREFIX):
        return read_synthetic(request, parse_kind(source.removeprefix(SYNTHETIC_PREFIX)))
    if source not in SOURCES:
        near = difflib.get_close_matches(source, SOURCES, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        names = ", ".join(SOURCES)
        raise UserError(f"unknown data source {source!r}{hint} there are {names} and {TFDS_PREFIX}NAME")
    return SOURCES[source](request)


AUGMENT = ("none", "randaugment", "autoaugment")
VALIDATION_SHARE = 100  # one picture in so many, unless a size is given; of ImageNet 12,811


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
    workers: int = 0,
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
            prepared as array_record, such as `tfds:imagenet2012`. Or `synthetic:CLASSESx3`: made-up images
            in the place of pictures, to see what the devices can take; 256 come again and again, neither
            mirrored nor augmented, in parts as large as asked for, or as ImageNet's.
        image_size: P in training.
        eval_size: P in evaluation; None is `image_size`.
        augment: "none", "randaugment" or "autoaugment", for training.
        randaugment: its number of operations and their magnitude.
        flip: whether half of the images are mirrored in training.
        train_size: pictures to train on; None is all that the other parts leave.
        validation_size: pictures to validate on; None is a hundredth of `train`; 0 for training on all of it.
        data_dir: folder of tfds; None is $TFDS_DATA_DIR, or else `~/tensorflow_datasets`.
        seed: from 0; of the split into train and validation.
        order_seed: from 0; of the order of training, of crops, flips and the policy.
        threads: that read and decode, of each process.
        workers: processes that do, for training; 0 is this one alone, as in evaluation. A third of the work
            on a picture is Python, at which the threads of a process take turns: one is not expected to use
            more than three cores. Each takes seconds to start, and a main needs `if __name__ == "__main__"`.
        host: number of this one, from 0.
        hosts: how many share the batches.

    Raises:
        ModuleNotFoundError: if the extra `imagenet` is not installed.
        DataNotFoundError: the data are not there; the message says what to run.
        ValueError: a setting out of range, sizes that do not fit, no image classification data.
    """
    eval_size = image_size if eval_size is None else eval_size
    _check_least(1, image_size=image_size, eval_size=eval_size, threads=threads)
    _check_least(0, **{"workers": workers, "data.seed": seed, "order_seed": order_seed})
    if not 0 <= host < hosts:
        raise UserError(f"host must be from 0 to {hosts - 1}, the number of hosts less 1, got {host}")
    policy, share = _policy(augment, randaugment), Share(host, hosts)
    if source.startswith(SYNTHETIC_PREFIX):
        kind = parse_kind(source.removeprefix(SYNTHETIC_PREFIX))
        return synthetic.open_synthetic(
            kind,
            image_size=image_size,
            eval_size=eval_size,
            train_size=train_size,
            validation_size=validation_size,
            seed=seed,
            share=share,
        )
    if not source.startswith(TFDS_PREFIX):
        streamed = f"{TFDS_PREFIX}NAME or {SYNTHETIC_PREFIX}CLASSESx3"
        raise UserError(f"pictures are streamed from {streamed} only, got {source!r}")
    try:
        # Here, since only streaming needs them; the extra `imagenet` brings them.
        from evonorms_jax.data import pipeline
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"streaming pictures needs {error.name}: pip install 'evonorms-jax[imagenet]'", name=error.name
        ) from error
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

    def train(batch_size, start):
        samples = pipeline.train_samples(parts["train"], image_size, policy, flip, order_seed)
        for images, labels, _ in pipeline.batches(samples, batch_size, start, share, threads, workers):
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


def _check_least(least: int, **settings: int) -> None:
    for name, value in settings.items():
        if value < least:
            raise UserError(f"{name} must be at least {least}, got {value}")


def _policy(augment: str, randaugment: RandAugment) -> Policy | None:
    if augment not in AUGMENT:
        near = difflib.get_close_matches(augment, AUGMENT, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        raise UserError(f"unknown augment {augment!r}{hint} there are {', '.join(AUGMENT)}")
    layers, magnitude = randaugment
    if layers < 0 or not 0 <= magnitude < math.inf:
        raise UserError(
            f"randaugment.layers and randaugment.magnitude must be at least 0, got {layers} and {magnitude}"
        )
    return {"none": None, "randaugment": randaugment, "autoaugment": AutoAugment()}[augment]


def _parts(
    prepared: Prepared, train_size: int | None, validation_size: int | None, seed: int
) -> dict[str, tuple[str, np.ndarray]]:
    """Split and numbers of the records of "train", "validation" and "test"."""
    count = prepared.counts["train"]
    published = _test_split(prepared)
    if validation_size is None:
        validation_size = max(1, count // VALIDATION_SHARE)
    cut = image_set.partition(
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
