"""RoIAlign over the levels of a pyramid: features of each region on a grid of fixed size.

B images, N regions, K bins along each axis, r samples of a bin along each axis, C channels. The bins of a
region divide it evenly. The value of a bin is the mean of r x r samples, evenly spread over it. A sample is
interpolated between four features, and a sample beyond the border takes the value there. The map has the
feature of pixel i at the coordinate i + 1/2 (`aligned`), or at i, as in the first released code.
Source: He et al. 2017 (arXiv 1703.06870), section 3. Levels: Lin et al. 2017 (arXiv 1612.03144), equation 1.

There are two forms with the same result. "gather" reads the features, at a cost that does not depend on the
size of the maps. Its gradient is a scatter, which is slow on a TPU and on XLA:CPU. "matmul" multiplies every
map with a matrix of weights along each axis, at a cost that grows with the maps, and without a scatter.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from evonorms_jax.detection.boxes import area
from evonorms_jax.errors import UserError
from evonorms_jax.search_space import target

METHODS = ("gather", "matmul")
_CANONICAL_LEVEL = 4  # level of a region as large as `canonical_side`


class RoiAlign(NamedTuple):
    """The choices of RoIAlign. The fields are keys of the config.

    Attributes:
      method: name in `METHODS`.
      sampling_ratio: samples of a bin along each axis, r.
      aligned: whether features lie at the centres of pixels.
      canonical_side: side in pixels of a region that belongs to level 4. Half of it belongs to level 3.
      chunk: regions of an image that "matmul" works on at a time, to save memory.
    """

    method: str = "gather"
    sampling_ratio: int = 2
    aligned: bool = True
    canonical_side: float = 224.0
    chunk: int = 64

    def __call__(self, pyramid: Mapping[int, jax.Array], regions: jax.Array, bins: int) -> jax.Array:
        """Features `[B, N, K, K, C]` of regions `[B, N, 4]`, in the dtype of the pyramid.

        Args:
          pyramid: maps `[B, H, W, C]` by level.
          regions: boxes in pixels of the canvas. They get no gradient.
          bins: K.

        Raises:
          ValueError: if the method is unknown.
        """
        if self.method not in METHODS:
            raise UserError(f"unknown RoIAlign method {self.method!r}; there are {', '.join(METHODS)}")
        regions = lax.stop_gradient(regions.astype(jnp.float32))
        levels = region_levels(regions, min(pyramid), max(pyramid), self.canonical_side)
        pool = _gather if self.method == "gather" else _matmul
        return pool(self, dict(sorted(pyramid.items())), regions, levels, bins)

    def samples(self, start: jax.Array, end: jax.Array, bins: int) -> jax.Array:
        """Coordinates `[..., K r]` of the samples along an axis between `start` and `end` `[...]`."""
        count = bins * self.sampling_ratio
        share = (jnp.arange(count, dtype=jnp.float32) + 0.5) / count
        places = start[..., None] + jnp.multiply.outer(end - start, share)
        return places - 0.5 if self.aligned else places


def region_levels(regions: jax.Array, least: int, most: int, canonical_side: float = 224.0) -> jax.Array:
    """Levels int32 `[...]`: floor(4 + log2(sqrt(area) / canonical_side)), clipped to the pyramid."""
    side = jnp.sqrt(jnp.maximum(area(regions), 1e-6))
    # The small addition keeps a side of exactly a power of two in its own level.
    level = jnp.floor(_CANONICAL_LEVEL + jnp.log2(side / canonical_side) + 1e-6)
    return jnp.clip(level, least, most).astype(jnp.int32)


def _matmul(align: RoiAlign, pyramid, regions, levels, bins):
    """The sum over levels of `rows @ map @ columns`, with zero weights for regions of other levels."""

    def pool(region, level):
        """Features `[B, K, K, C]` of one region `[B, 4]` of each image."""
        return sum(
            _pool_level(align, features, region / 2**number, level == number, bins)
            for number, features in pyramid.items()
        )

    # A map times the rows alone is as large as the map, for each region. So few of them exist at a time.
    chunk = min(align.chunk, regions.shape[1])
    with target.counted_loop(regions.shape[1] // chunk):
        pooled = lax.map(
            lambda one: pool(*one), (regions.swapaxes(0, 1), levels.swapaxes(0, 1)), batch_size=chunk
        )
    return pooled.swapaxes(0, 1).astype(next(iter(pyramid.values())).dtype)


def _pool_level(align: RoiAlign, features, region, own, bins):
    height, width = features.shape[1:3]
    rows = _weights(align, region[:, 0], region[:, 2], bins, height) * own[:, None, None]
    columns = _weights(align, region[:, 1], region[:, 3], bins, width)
    # In bfloat16 the weights are rounded as the features are, and sums are float32.
    exact = {"precision": lax.Precision.HIGHEST, "preferred_element_type": jnp.float32}
    rows, columns = rows.astype(features.dtype), columns.astype(features.dtype)
    along = jnp.einsum("bih,bhwc->biwc", rows, features, **exact).astype(features.dtype)
    if target.platform() == "cpu":
        # Columns repeated for every row spare XLA:CPU a transposed copy of `along`, which took longer than
        # both products.
        columns = jnp.broadcast_to(columns[:, None], (*along.shape[:2], *columns.shape[1:]))
        return jnp.einsum("biwc,bijw->bijc", along, columns, **exact)
    return jnp.einsum("biwc,bjw->bijc", along, columns, **exact)


def _weights(align: RoiAlign, start, end, bins, pixels):
    """The mean weight `[B, K, pixels]` of each pixel for the samples of a bin along an axis."""
    places = jnp.clip(align.samples(start, end, bins), 0.0, pixels - 1.0)
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(jnp.subtract.outer(places, jnp.arange(pixels))))
    return jnp.mean(weights.reshape(len(weights), bins, -1, pixels), 2)


def _gather(align: RoiAlign, pyramid, regions, levels, bins):
    """Reads the features under all samples from the maps laid end to end, `[B, sum(H W), C]`."""
    maps = list(pyramid.values())
    flat = jnp.concatenate([one.reshape(one.shape[0], -1, one.shape[-1]) for one in maps], 1)
    place = levels - min(pyramid)
    sizes = jnp.array([one.shape[1:3] for one in maps], jnp.int32)[place]  # [B, N, 2]
    starts = [0]
    for one in maps[:-1]:
        starts.append(starts[-1] + one.shape[1] * one.shape[2])
    first = jnp.array(starts, jnp.int32)[place]
    scaled = regions / (2.0**levels)[..., None]
    rows, row_weights = _taps(align, scaled[..., 0], scaled[..., 2], bins, sizes[..., 0])
    columns, column_weights = _taps(align, scaled[..., 1], scaled[..., 3], bins, sizes[..., 1])
    index = first[..., None] + rows * sizes[..., 1, None]
    index = index[..., :, None] + columns[..., None, :]  # [B, N, T, T] with T = 2 K r taps along an axis
    read = jax.vmap(lambda features, at: features[at])(flat, index)
    weights = (row_weights[..., :, None] * column_weights[..., None, :])[..., None]
    taps = 2 * align.sampling_ratio
    weighted = (read * weights).reshape(*index.shape[:2], bins, taps, bins, taps, -1)
    return jnp.sum(weighted, (3, 5)).astype(flat.dtype)


def _taps(align: RoiAlign, start, end, bins, pixels):
    """Pixels int32 `[B, N, 2 K r]` beside each sample along an axis, and their weights in the bin's mean."""
    last = (pixels - 1)[..., None].astype(jnp.float32)
    places = jnp.clip(align.samples(start, end, bins), 0.0, last)
    below = jnp.floor(places)
    above = jnp.minimum(below + 1, last)
    share = places - below
    indices = jnp.stack([below, above], -1).astype(jnp.int32)
    weights = jnp.stack([1 - share, share], -1) / align.sampling_ratio
    return indices.reshape(*start.shape, -1), weights.reshape(*start.shape, -1)
