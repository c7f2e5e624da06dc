"""Which object an anchor or a region of interest belongs to: the targets of one image.

N anchors or regions, M object slots of which some are empty. A slot that is not valid never matches.
Source: Ren et al. 2015 (arXiv 1506.01497), section 3.1.2; He et al. 2017 (arXiv 1703.06870), section 3.1.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from evonorms_jax.detection.boxes import overlaps


class Match(NamedTuple):
    """The object of each anchor or region, and whether it is an example of that object or of background."""

    objects: jax.Array  # int32 [N], number of the object slot, 0 without an object
    positive: jax.Array  # bool [N]
    negative: jax.Array  # bool [N]; those that are neither are ignored


def match_anchors(
    anchors: jax.Array,
    boxes: jax.Array,
    valid: jax.Array,
    *,
    positive_overlap: float = 0.7,
    negative_overlap: float = 0.3,
) -> Match:
    """Matches the anchors of an image with its objects.

    An anchor is positive if it overlaps an object by `positive_overlap` or more, or if no other anchor
    overlaps that object as much. The second kind belongs to that object, even if it overlaps another more.
    The first of equal anchors counts. Of two objects with the same best anchor the lower slot has it.

    Args:
      anchors: `[N, 4]`.
      boxes: `[M, 4]`.
      valid: bool `[M]`, whether a slot holds an object.
      positive_overlap: least overlap of a positive anchor.
      negative_overlap: below it in overlap with every object, an anchor is negative.
    """
    found = jnp.where(valid[None], overlaps(anchors, boxes), -1.0)
    largest, objects = jnp.max(found, 1), jnp.argmax(found, 1)
    # An object that no anchor touches has no best anchor. Its update falls outside and is dropped.
    touched = valid & (jnp.max(found, 0) > 0)
    best = jnp.where(touched, jnp.argmax(found, 0), len(anchors))
    slots = len(boxes)
    owner = jnp.full((len(anchors),), slots, jnp.int32)
    owner = owner.at[best].min(jnp.arange(slots, dtype=jnp.int32), mode="drop")
    forced = owner < slots
    objects = jnp.where(forced, owner, objects.astype(jnp.int32))
    positive = forced | (largest >= positive_overlap)
    return Match(objects, positive, ~positive & (largest < negative_overlap))


def match_regions(
    regions: jax.Array,
    regions_valid: jax.Array,
    boxes: jax.Array,
    valid: jax.Array,
    *,
    positive_overlap: float = 0.5,
) -> Match:
    """Matches the regions of an image with its objects.

    A region is positive above `positive_overlap`, and otherwise an example of background. Without objects
    all valid regions are background. A region that is not valid is neither.
    """
    found = jnp.where(valid[None], overlaps(regions, boxes), -1.0)
    positive = regions_valid & (jnp.max(found, 1) > positive_overlap)
    return Match(jnp.argmax(found, 1).astype(jnp.int32), positive, regions_valid & ~positive)
