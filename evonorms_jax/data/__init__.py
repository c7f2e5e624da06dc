"""Data sets, in memory or read as they are needed, and what turns them into batches."""

from evonorms_jax.data.augment import normalize, random_crop_flip
from evonorms_jax.data.batches import EvalBatches, batch_indices, eval_batches
from evonorms_jax.data.image_set import DataNotFoundError, ImageData, ImageSet
from evonorms_jax.data.policies import RandAugment
from evonorms_jax.data.sources import SOURCES, load, open_stream
from evonorms_jax.data.stream import Batch, Stream
from evonorms_jax.data.synthetic import stripes

__all__ = [
    "SOURCES",
    "Batch",
    "DataNotFoundError",
    "EvalBatches",
    "ImageData",
    "ImageSet",
    "RandAugment",
    "Stream",
    "batch_indices",
    "eval_batches",
    "load",
    "normalize",
    "open_stream",
    "random_crop_flip",
    "stripes",
]
