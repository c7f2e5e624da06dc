"""Data sets as arrays in memory, and what turns them into batches on the device."""

from evonorms_jax.data.augment import normalize, random_crop_flip
from evonorms_jax.data.batches import EvalBatches, batch_indices, eval_batches
from evonorms_jax.data.image_set import DataNotFoundError, ImageData, ImageSet
from evonorms_jax.data.sources import SOURCES, load
from evonorms_jax.data.synthetic import stripes

__all__ = [
    "SOURCES",
    "DataNotFoundError",
    "EvalBatches",
    "ImageData",
    "ImageSet",
    "batch_indices",
    "eval_batches",
    "load",
    "normalize",
    "random_crop_flip",
    "stripes",
]
