"""The regions of an image that train the box and the mask head, with their targets.

N proposals, M object slots, R regions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from evonorms_jax.detection.matching import match_regions
from evonorms_jax.detection.proposals import Proposals
from evonorms_jax.detection.sampling import sample


class SamplingSettings(NamedTuple):
    """How many anchors and regions of an image enter the losses. The fields are keys of `config.sampling`.

    Attributes:
      anchors: anchors of an image.
      positive_anchors: the most of them that are positive.
      regions: regions of an image, R.
      positive_regions: the most of them that are positive. They train the mask head.
    """

    anchors: int = 256
    positive_anchors: int = 128
    regions: int = 512
    positive_regions: int = 128


class Regions(NamedTuple):
    """Regions with their targets, the positive ones first."""

    boxes: jax.Array  # [R, 4]
    classes: jax.Array  # int32 [R], 0 for background
    objects: jax.Array  # int32 [R], number of the slot of the object
    positive: jax.Array  # bool [R]
    valid: jax.Array  # bool [R]


def sample_regions(
    key: jax.Array,
    proposals: Proposals,
    boxes: jax.Array,
    classes: jax.Array,
    valid: jax.Array,
    settings: SamplingSettings,
) -> Regions:
    """Draws the regions of one image from its proposals and its objects.

    Args:
      key: consumed.
      proposals: proposals of the image.
      boxes: `[M, 4]`, the objects.
      classes: int32 `[M]`.
      valid: bool `[M]`, whether a slot holds an object.
      settings: numbers of regions.
    """
    candidates = lax.stop_gradient(jnp.concatenate([proposals.boxes, boxes]))
    usable = jnp.concatenate([proposals.valid, valid])
    match = match_regions(candidates, usable, boxes, valid)
    drawn = sample(key, match.positive, match.negative, settings.regions, settings.positive_regions)
    objects = match.objects[drawn.indices]
    return Regions(
        jnp.where(drawn.valid[:, None], candidates[drawn.indices], 0.0),
        jnp.where(drawn.positive, classes[objects], 0),
        jnp.where(drawn.positive, objects, 0),
        drawn.positive,
        drawn.valid,
    )
