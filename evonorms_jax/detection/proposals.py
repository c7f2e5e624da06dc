"""From the outputs of the region proposal network to regions: the best boxes of all levels.

A anchors of an image, N proposals. Source: Lin et al. 2017 (arXiv 1612.03144), section 4.1, in the order of
the released code: suppression within each level, then the best over all levels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from evonorms_jax.detection.boxes import PROPOSAL_WEIGHTS, area, clip, decode
from evonorms_jax.detection.nms import suppress


class ProposalSettings(NamedTuple):
    """How many boxes become regions. The fields are keys of `config.proposals`.

    Attributes:
      train_candidates: best boxes of each level before suppression, in training.
      test_candidates: the same in evaluation.
      count: proposals of an image, N.
      threshold: largest overlap of two proposals of a level.
    """

    train_candidates: int = 2000
    test_candidates: int = 1000
    count: int = 1000
    threshold: float = 0.7


class Proposals(NamedTuple):
    """Regions of an image by falling score."""

    boxes: jax.Array  # [N, 4], 0 where not valid
    scores: jax.Array  # [N] probability of an object, -1 where not valid
    valid: jax.Array  # bool [N]


def propose(
    logits: jax.Array,
    codes: jax.Array,
    anchors: Sequence[np.ndarray],
    size: jax.Array,
    settings: ProposalSettings,
    *,
    train: bool,
) -> Proposals:
    """The proposals of one image, without a gradient.

    Boxes are clipped to the image. Those that lie outside of it, in the filling, are dropped.

    Args:
      logits: `[A]`, of an object at each anchor.
      codes: `[A, 4]`.
      anchors: anchors `[A_l, 4]` of each level, A in all.
      size: height and width of the image on the canvas.
      settings: numbers and threshold.
      train: whether the candidates are those of training.
    """
    logits, codes = lax.stop_gradient((logits, codes))
    candidates = settings.train_candidates if train else settings.test_candidates
    width = min(candidates, max(map(len, anchors)))
    start, levels = 0, []
    for level in anchors:
        own = slice(start, start + len(level))
        levels.append(_best(logits[own], codes[own], jnp.asarray(level), size, width))
        start += len(level)
    boxes, scores, valid = (jnp.stack(values) for values in zip(*levels, strict=True))

    def within(boxes, scores, valid):
        return suppress(boxes, scores, valid, threshold=settings.threshold, count=min(settings.count, width))

    kept = jax.vmap(within)(boxes, scores, valid)
    boxes = jnp.take_along_axis(boxes, kept.indices[..., None], 1).reshape(-1, 4)
    scores = jnp.take_along_axis(scores, kept.indices, 1).ravel()
    scores, valid = jnp.where(kept.valid.ravel(), scores, -jnp.inf), kept.valid.ravel()
    reach = min(settings.count, len(scores))
    best, places = lax.top_k(scores, reach)
    valid = valid[places]
    found = Proposals(
        jnp.where(valid[:, None], boxes[places], 0.0), jnp.where(valid, jax.nn.sigmoid(best), -1.0), valid
    )
    filling = settings.count - reach
    return Proposals(
        jnp.pad(found.boxes, ((0, filling), (0, 0))),
        jnp.pad(found.scores, (0, filling), constant_values=-1.0),
        jnp.pad(found.valid, (0, filling)),
    )


def _best(logits, codes, anchors, size, width):
    """The boxes of a level with the largest logits, filled up to `width`."""
    count = min(width, len(anchors))
    best, places = lax.top_k(logits, count)
    boxes = clip(decode(codes[places], anchors[places], PROPOSAL_WEIGHTS), size)
    filling = width - count
    valid = jnp.pad(area(boxes) > 0, (0, filling))
    return jnp.pad(boxes, ((0, filling), (0, 0))), jnp.pad(best, (0, filling)), valid
