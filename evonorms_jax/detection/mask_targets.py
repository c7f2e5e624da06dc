"""Mask targets: the part of an object's stored mask that lies in a region, on the grid of the mask head.

The mask of an object is stored as `[S, S]` pixels of its box. The value at the centre of each bin of a
region is interpolated between those pixels, with zeros outside, and is binarised at one half.
"""

import jax
import jax.numpy as jnp
from jax import lax


def crop_masks(masks: jax.Array, boxes: jax.Array, regions: jax.Array, side: int) -> jax.Array:
    """Binary masks float32 `[N, side, side]` of regions `[N, 4]`.

    Args:
      masks: `[N, S, S]` in [0, 1], the mask of each region's object.
      boxes: `[N, 4]`, the box of that object, in pixels of the canvas as the regions are.
      regions: `[N, 4]`.
      side: bins of a region along each axis.
    """
    stored = masks.shape[-1]
    rows = _interpolation(regions[:, 0], regions[:, 2], boxes[:, 0], boxes[:, 2], side, stored)
    columns = _interpolation(regions[:, 1], regions[:, 3], boxes[:, 1], boxes[:, 3], side, stored)
    exact = {"precision": lax.Precision.HIGHEST}
    soft = jnp.einsum("nis,nst->nit", rows, masks.astype(jnp.float32), **exact)
    soft = jnp.einsum("nit,njt->nij", soft, columns, **exact)
    return (soft >= 0.5).astype(jnp.float32)


def _interpolation(start, end, box_start, box_end, bins, pixels):
    """Weights `[N, bins, pixels]` of the pixels along an axis of a box for each bin of a region."""
    centres = (jnp.arange(bins) + 0.5) / bins
    at = start[:, None] + jnp.outer(end - start, centres)
    length = jnp.maximum(box_end - box_start, 1e-3)[:, None]
    place = (at - box_start[:, None]) / length * pixels - 0.5
    return jnp.maximum(0.0, 1.0 - jnp.abs(jnp.subtract.outer(place, jnp.arange(pixels))))
