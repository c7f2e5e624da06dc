"""Made-up images as if they were read: what the devices can take, whatever the reading of pictures gives."""

import functools
import itertools

import numpy as np

from evonorms_jax.data import synthetic
from evonorms_jax.data.stream import CHANNELS, Batch, Share, Stream

POOL = 256  # images of a part that differ, 38 MB at 224 x 224; they come again and again
TRAIN_SIZE = 1_281_167  # with the validation part; as ImageNet has, so that epochs are as long


def open_synthetic(
    kind: synthetic.Kind,
    *,
    image_size: int,
    eval_size: int,
    train_size: int | None,
    validation_size: int | None,
    seed: int,
    share: Share,
) -> Stream:
    """Image n of a part is number n % 256 of a few, in order and not augmented, at the price of a copy.

    Args:
        kind: classes, and the three channels of every stream.
        image_size: side of the images to train on.
        eval_size: side of the images to evaluate on.
        train_size: images to train on; None is as many as ImageNet has.
        validation_size: images to validate on, None is 128; to test on, there are 128.
        seed: of the images.
        share: of this host.

    Raises:
        ValueError: if the channels are not three, or a size is too small.
    """
    if kind.channels != CHANNELS:
        named = f"synthetic:{kind.num_classes}x{kind.channels}"
        raise ValueError(f"pictures are streamed with {CHANNELS} channels, which {named} has not")
    validation_size = synthetic.VALIDATION_SIZE if validation_size is None else validation_size
    train_size = TRAIN_SIZE - validation_size if train_size is None else train_size
    if train_size < 1 or validation_size < 0:
        raise ValueError(
            f"train_size={train_size} and validation_size={validation_size}: they must be at least 1 and 0"
        )
    sizes = {"train": train_size, "validation": validation_size, "test": synthetic.TEST_SIZE}

    @functools.cache
    def pool(part):
        size = image_size if part == "train" else eval_size
        return synthetic.part(part, min(POOL, sizes[part]), size, kind, seed)

    def read(part, batch_size, number):
        places = share.first(batch_size, number) + np.arange(batch_size // share.hosts)
        images, labels = pool(part)
        chosen = places % len(labels)
        return images[chosen], labels[chosen], (places < sizes[part]).astype(np.float32)

    def train(batch_size, start):
        for number in itertools.count(start):
            yield Batch(*read("train", batch_size, number)[:2])

    def evaluate(part, batch_size):
        for number in range(-(-sizes[part] // batch_size)):
            yield read(part, batch_size, number)

    return Stream(
        "synthetic",
        kind.num_classes,
        sizes,
        image_size=image_size,
        eval_size=eval_size,
        hosts=share.hosts,
        train=train,
        evaluate=evaluate,
    )
