"""Boxes: area, overlap, the code of one box relative to another, and clipping.

Boxes are float32 `[..., 4]`, (y0, x0, y1, x1) in pixels, and have the height y1 - y0. Everything here is
element-wise in float32: bfloat16 has steps of 4 pixels at x = 1000.
Source: Ren et al. 2015 (arXiv 1506.01497), section 3.1.2, for the code.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

#: The factors of (dy, dx, dh, dw) in the box head, which bring targets to a deviation of about 1.
BOX_HEAD_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
#: The factors in the region proposal network.
PROPOSAL_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
#: The largest log ratio of sizes that is decoded, so that exp cannot overflow.
LARGEST_LOG_RATIO = math.log(1000 / 16)
_SMALLEST_SIDE = 1e-3  # of a box that is coded or divided by, in pixels


def sides(boxes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Heights and widths `[...]`, not below 0."""
    return (
        jnp.maximum(boxes[..., 2] - boxes[..., 0], 0.0),
        jnp.maximum(boxes[..., 3] - boxes[..., 1], 0.0),
    )


def area(boxes: jax.Array) -> jax.Array:
    """Areas `[...]` in square pixels."""
    height, width = sides(boxes)
    return height * width


def overlaps(first: jax.Array, second: jax.Array) -> jax.Array:
    """Intersection over union of each pair, `[N, 4]` and `[M, 4]` to `[N, M]`; 0 for two empty boxes."""
    one, other = first[:, None], second[None]
    height = jnp.minimum(one[..., 2], other[..., 2]) - jnp.maximum(one[..., 0], other[..., 0])
    width = jnp.minimum(one[..., 3], other[..., 3]) - jnp.maximum(one[..., 1], other[..., 1])
    shared = jnp.maximum(height, 0.0) * jnp.maximum(width, 0.0)
    union = area(one) + area(other) - shared
    return jnp.where(union > 0, shared / jnp.where(union > 0, union, 1.0), 0.0)


def encode(boxes: jax.Array, anchors: jax.Array, weights: Sequence[float]) -> jax.Array:
    """The code (dy, dx, dh, dw) `[..., 4]` of boxes relative to anchors.

    dy = wy (yc - ya) / ha and dh = wh log(h / ha), with centres yc, ya and heights h, ha. Those of x and w
    have the same form.
    Sides below a thousandth of a pixel count as that, so that the code of an empty box is finite.
    """
    height, width = (jnp.maximum(side, _SMALLEST_SIDE) for side in sides(boxes))
    anchor_height, anchor_width = (jnp.maximum(side, _SMALLEST_SIDE) for side in sides(anchors))
    shift = (_centres(boxes) - _centres(anchors)) / jnp.stack([anchor_height, anchor_width], -1)
    growth = jnp.stack([jnp.log(height / anchor_height), jnp.log(width / anchor_width)], -1)
    return jnp.concatenate([shift, growth], -1) * _like(weights, shift)


def decode(code: jax.Array, anchors: jax.Array, weights: Sequence[float]) -> jax.Array:
    """The boxes `[..., 4]` of a code, the inverse of `encode` up to `LARGEST_LOG_RATIO`."""
    code = code.astype(jnp.float32) / _like(weights, code)
    size = jnp.stack(sides(anchors), -1)
    centre = _centres(anchors) + code[..., :2] * size
    half = 0.5 * jnp.exp(jnp.minimum(code[..., 2:], LARGEST_LOG_RATIO)) * size
    return jnp.concatenate([centre - half, centre + half], -1)


def clip(boxes: jax.Array, size: jax.Array) -> jax.Array:
    """Boxes `[N, 4]` cut off at the borders of an image of `size` (height, width) `[2]`."""
    return jnp.clip(boxes, 0.0, jnp.concatenate([size, size])[None])


def _like(weights: Sequence[float], code: jax.Array) -> jax.Array:
    """The weights with the rank of a code."""
    return jnp.asarray(weights, jnp.float32).reshape((1,) * (code.ndim - 1) + (4,))


def _centres(boxes: jax.Array) -> jax.Array:
    return 0.5 * (boxes[..., :2] + boxes[..., 2:])
