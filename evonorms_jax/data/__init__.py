"""Data sets, held in memory or read as streams, and the batches made of them."""

from evonorms_jax.data.augment import normalize, random_crop_flip
from evonorms_jax.data.batches import EvalBatches, batch_indices, eval_batches
from evonorms_jax.data.image_set import DataNotFoundError, ImageData, ImageSet
from evonorms_jax.data.policies import RandAugment
from evonorms_jax.data.settings import DataSettings
from evonorms_jax.data.sources import SOURCES, load, load_images, open_stream
from evonorms_jax.data.stream import Batch, Share, Stream
from evonorms_jax.data.synthetic import stripes

__all__ = [
    "SOURCES",
    "Batch",
    "DataNotFoundError",
    "DataSettings",
    "EvalBatches",
    "ImageData",
    "ImageSet",
    "RandAugment",
    "Share",
    "Stream",
    "batch_indices",
    "eval_batches",
    "load",
    "load_images",
    "normalize",
    "open_stream",
    "random_crop_flip",
    "stripes",
]
