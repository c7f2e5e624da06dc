"""The five losses of a Mask R-CNN, each a scalar of weight 1.

B images, A anchors, S sampled anchors of an image, N regions, K outputs. All are float32, and 0 without any
example. The normalisers count all objects alike.
"""

import jax
import jax.numpy as jnp

from evonorms_jax.detection.boxes import BOX_HEAD_WEIGHTS, PROPOSAL_WEIGHTS, encode
from evonorms_jax.detection.matching import match_anchors
from evonorms_jax.detection.sampling import sample
from evonorms_jax.detection.types import TrainingBatch

_PROPOSAL_BETA = 1 / 9


def smooth_l1(difference: jax.Array, beta: float) -> jax.Array:
    """x^2 / (2 beta) below beta, |x| - beta / 2 above, as in Girshick 2015 (arXiv 1504.08083), equation 3."""
    size = jnp.abs(difference)
    return jnp.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta)


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)), for each element."""
    return jax.nn.softplus(logits) - logits * targets


def proposal_losses(
    keys: jax.Array,
    logits: jax.Array,
    codes: jax.Array,
    anchors: jax.Array,
    batch: TrainingBatch,
    *,
    count: int,
    positive_count: int,
) -> tuple[jax.Array, jax.Array]:
    """Score and box loss of the region proposal network, sums over sampled anchors / (B S).

    The box loss is smooth-L1 with beta 1/9 over the positive ones.

    Args:
      keys: `[B]`, consumed: the samples.
      logits: `[B, A]`.
      codes: `[B, A, 4]`.
      anchors: `[A, 4]`.
      batch: the objects.
      count: S.
      positive_count: the most positive ones among them.
    """

    anchors = jnp.asarray(anchors)

    def of_image(key, logits, codes, boxes, valid):
        match = match_anchors(anchors, boxes, valid)
        drawn = sample(key, match.positive, match.negative, count, positive_count)
        chosen = logits[drawn.indices]
        score = jnp.sum(drawn.valid * binary_cross_entropy(chosen, drawn.positive.astype(jnp.float32)))
        targets = encode(boxes[match.objects[drawn.indices]], anchors[drawn.indices], PROPOSAL_WEIGHTS)
        distance = jnp.sum(smooth_l1(codes[drawn.indices] - targets, _PROPOSAL_BETA), -1)
        return score / count, jnp.sum(drawn.positive * distance) / count

    score, box = jax.vmap(of_image)(keys, logits, codes, batch.boxes, batch.valid)
    return jnp.mean(score), jnp.mean(box)


def class_loss(logits: jax.Array, classes: jax.Array, valid: jax.Array) -> jax.Array:
    """Softmax cross-entropy, mean over valid regions: `[B, N, K]`, int `[B, N]`, bool `[B, N]`."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), classes[..., None], -1)[..., 0]
    return -_mean(chosen, valid, valid)


def box_loss(
    codes: jax.Array,
    regions: jax.Array,
    boxes: jax.Array,
    classes: jax.Array,
    positive: jax.Array,
    valid: jax.Array,
) -> jax.Array:
    """Smooth-L1 with beta 1 of the codes of the true class, positive regions' sum / number of valid ones.

    Args:
      codes: `[B, N, K, 4]`.
      regions: `[B, N, 4]`.
      boxes: `[B, N, 4]`, the object of each region.
      classes: int `[B, N]`.
      positive: bool `[B, N]`.
      valid: bool `[B, N]`.
    """
    chosen = jnp.take_along_axis(codes, classes[..., None, None], 2)[..., 0, :]
    distance = smooth_l1(chosen - encode(boxes, regions, BOX_HEAD_WEIGHTS), 1.0)
    return _mean(jnp.sum(distance, -1), positive, valid)


def mask_loss(logits: jax.Array, targets: jax.Array, positive: jax.Array) -> jax.Array:
    """Binary cross-entropy, mean over the pixels `[B, N, H, W]` of positive regions."""
    return _mean(jnp.mean(binary_cross_entropy(logits, targets), (2, 3)), positive, positive)


def _mean(values: jax.Array, chosen: jax.Array, counted: jax.Array) -> jax.Array:
    """The sum of the chosen values over the number of counted places, 0 without any."""
    return jnp.sum(jnp.where(chosen, values, 0.0)) / jnp.maximum(jnp.sum(counted), 1)
