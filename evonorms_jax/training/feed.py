"""The images of a training on the mesh, from a data set held on the devices or from a stream."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from evonorms_jax.data import ImageData, Stream, batch_indices, eval_batches, random_crop_flip
from evonorms_jax.training.mesh import put_batch, replicated, split
from evonorms_jax.training.steps import Images


class Feed(NamedTuple):
    """The images of one training.

    Attributes:
      name: name of the data set.
      images: shape, classes and moments of the images, for the model.
      sizes: number of images in "train", "validation" and "test".
      batches: `start -> Iterator` of the batches from that step on, images uint8 `[B, P, P, C]` and labels
        int32 `[B]` on the mesh. A batch depends on its number alone.
      evaluation: `part -> Iterable` of this host's share of a part, (images, labels, weights) on the host;
        weight 0 is filling. An empty part has no batches.
    """

    name: str
    images: Images
    sizes: Mapping[str, int]
    batches: Callable[[int], Iterator[tuple[jax.Array, jax.Array]]]
    evaluation: Callable[[str], Iterable[Any]]


class Batching(NamedTuple):
    """Sizes of the batches, and the augmentation of images held on the devices."""

    batch_size: int  # B
    eval_batch_size: int
    crop: int  # P in training; the side of the images takes them whole
    flip: bool


def resident_feed(data: ImageData, batching: Batching, key: jax.Array, mesh: Mesh) -> Feed:
    """Keeps the whole training part on every device, and draws, crops and mirrors there.

    The key is consumed: it draws the order, the places and the flips of the whole training.
    """
    train = jax.device_put(tuple(data.train), replicated(mesh))
    order_key, crop_key = jax.random.split(key)

    def draw(train, step):
        images, labels = train
        chosen = batch_indices(order_key, step, len(images), batching.batch_size)
        noise = jax.random.fold_in(crop_key, step)
        return random_crop_flip(noise, images[chosen], batching.crop, batching.flip), labels[chosen]

    draw = jax.jit(draw, out_shardings=split(mesh))
    jax.eval_shape(draw, train, 0)  # refuses a batch or a crop that is too large before anything is built
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    number, count = jax.process_index(), jax.process_count()

    def evaluation(part):
        share = slice(number, None, count)
        batches = zip(*eval_batches(parts[part], batching.eval_batch_size), strict=True)
        return (tuple(values[share] for values in batch) for batch in batches)

    return Feed(
        data.name,
        Images(data.train.images.shape[1:], data.num_classes, data.mean, data.std),
        {part: len(image_set.images) for part, image_set in parts.items() if image_set is not None},
        lambda start: (draw(train, step) for step in itertools.count(start)),
        evaluation,
    )


def stream_feed(stream: Stream, batching: Batching, mesh: Mesh) -> Feed:
    """Puts on the mesh the batches that the host has read, decoded, cropped and mirrored."""

    def batches(start):
        for batch in stream.train_batches(batching.batch_size, start):
            yield put_batch(mesh, tuple(batch))

    def evaluation(part):
        return stream.eval_batches(part, batching.eval_batch_size) if stream.sizes[part] else ()

    side = stream.eval_size
    images = Images((side, side, 3), stream.num_classes, stream.mean, stream.std)
    return Feed(stream.name, images, stream.sizes, batches, evaluation)
