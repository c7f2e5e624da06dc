"""The passes through a detector: the losses of a batch in training, and the detections in evaluation.

B images on a canvas of side P, M object slots, N regions, K outputs with background, D detections.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from evonorms_jax.detection import losses
from evonorms_jax.detection.boxes import BOX_HEAD_WEIGHTS, area, clip, decode
from evonorms_jax.detection.detector import BOX_BINS, MASK_BINS, MaskRcnn
from evonorms_jax.detection.mask_targets import crop_masks
from evonorms_jax.detection.nms import suppress
from evonorms_jax.detection.proposals import ProposalSettings, propose
from evonorms_jax.detection.regions import Regions, SamplingSettings, sample_regions
from evonorms_jax.detection.roi_align import RoiAlign
from evonorms_jax.detection.types import DETECTED_MASK_SIDE, Array, Detections, TrainingBatch

#: Mean and deviation of the pixels of ImageNet, in grey levels, by which images are normalised.
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


class DetectionSettings(NamedTuple):
    """Which boxes become detections. The fields are keys of `config.detections`.

    Attributes:
      least_score: probability that a detection exceeds.
      candidates: best pairs of region and class before suppression.
      threshold: largest overlap of two detections of a class.
      count: detections of an image, D.
    """

    least_score: float = 0.05
    candidates: int = 2000
    threshold: float = 0.5
    count: int = 100


class Choices(NamedTuple):
    """The settings of all passes."""

    anchors: Sequence[np.ndarray]  # of each level, see `anchors.level_anchors`
    proposals: ProposalSettings
    sampling: SamplingSettings
    roi_align: RoiAlign
    detections: DetectionSettings
    classes: Sequence[int]  # classes of the data, without background. A detector may have more outputs


def normalise(images: Array, sizes: Array) -> jax.Array:
    """Images `[B, P, P, 3]` in grey levels to mean 0 and deviation 1, float32, with zeros in the filling."""
    mean, std = (jnp.asarray(value).reshape(1, 1, 1, 3) for value in (MEAN, STD))
    x = (jnp.asarray(images).astype(jnp.float32) - mean) / std
    places = [jnp.arange(side, dtype=jnp.float32) for side in x.shape[1:3]]
    rows, columns = (places[axis][None] < jnp.asarray(sizes)[:, axis, None] for axis in range(2))
    return jnp.where(rows[:, :, None, None] & columns[:, None, :, None], x, 0.0)


def training_losses(
    detector: MaskRcnn, batch: TrainingBatch, key: jax.Array, choices: Choices
) -> OrderedDict[str, jax.Array]:
    """The losses of a batch by name, each a scalar.

    Args:
      detector: bound detector.
      batch: images and objects.
      key: consumed: the samples of anchors and regions.
      choices: settings.
    """
    sampling = choices.sampling
    keys = jax.vmap(jax.random.split)(jax.random.split(key, len(batch.images)))
    maps = detector.features(normalise(batch.images, batch.sizes), train=True)
    logits, codes = detector.proposals(maps, train=True)
    anchors = jnp.concatenate([jnp.asarray(level) for level in choices.anchors])
    score, box = losses.proposal_losses(
        *(keys[:, 0], logits, codes, anchors, batch),
        count=sampling.anchors,
        positive_count=sampling.positive_anchors,
    )
    found = OrderedDict(proposal_score_loss=score, proposal_box_loss=box)

    def regions_of(key, logits, codes, size, boxes, classes, valid):
        proposals = propose(logits, codes, choices.anchors, size, choices.proposals, train=True)
        return sample_regions(key, proposals, boxes, classes, valid, sampling)

    objects = batch.boxes, batch.classes, batch.valid
    regions = jax.vmap(regions_of)(keys[:, 1], logits, codes, batch.sizes, *objects)
    pooled = choices.roi_align(maps, regions.boxes, BOX_BINS)
    class_logits, box_codes = detector.boxes(pooled, regions.valid, train=True)
    targets = jnp.take_along_axis(batch.boxes, regions.objects[..., None], 1)
    found["class_loss"] = losses.class_loss(class_logits, regions.classes, regions.valid)
    found["box_loss"] = losses.box_loss(
        *(box_codes, regions.boxes, targets, regions.classes, regions.positive, regions.valid)
    )
    # The positive regions come first.
    shown = jax.tree.map(lambda values: values[:, : sampling.positive_regions], regions)
    found["mask_loss"] = _mask_loss(detector, maps, batch, shown, choices)
    return found


def _mask_loss(detector, maps, batch: TrainingBatch, regions: Regions, choices: Choices) -> jax.Array:
    pooled = choices.roi_align(maps, regions.boxes, MASK_BINS)
    logits = detector.masks(pooled, regions.positive, regions.classes, train=True)

    def targets_of(masks, boxes, regions):
        return crop_masks(masks[regions.objects], boxes[regions.objects], regions.boxes, DETECTED_MASK_SIDE)

    targets = jax.vmap(targets_of)(jnp.asarray(batch.masks), batch.boxes, regions)
    return losses.mask_loss(logits, targets, regions.positive)


def detect(detector: MaskRcnn, images: Array, sizes: Array, choices: Choices) -> Detections:
    """The detections of images `[B, P, P, 3]` of sizes `[B, 2]`. They do not depend on each other."""
    maps = detector.features(normalise(images, sizes), train=False)
    logits, codes = detector.proposals(maps, train=False)

    def proposals_of(logits, codes, size):
        return propose(logits, codes, choices.anchors, size, choices.proposals, train=False)

    proposals = jax.vmap(proposals_of)(logits, codes, jnp.asarray(sizes))
    pooled = choices.roi_align(maps, proposals.boxes, BOX_BINS)
    class_logits, box_codes = detector.boxes(pooled, proposals.valid, train=False)

    known = np.zeros((1, class_logits.shape[-1]), np.float32)
    known[:, list(choices.classes)] = 1

    def best_of(class_logits, box_codes, regions, valid, size):
        scores = jax.nn.softmax(class_logits) * known
        return best_boxes(scores, box_codes, regions, valid, size, choices.detections)

    regions = proposals.boxes, proposals.valid
    boxes, scores, classes, valid = jax.vmap(best_of)(class_logits, box_codes, *regions, jnp.asarray(sizes))
    pooled = choices.roi_align(maps, boxes, MASK_BINS)
    masks = jax.nn.sigmoid(detector.masks(pooled, valid, classes, train=False))
    masks = jnp.where(valid[..., None, None], masks, 0.0)
    return Detections(boxes, scores, classes, masks, valid)


def best_boxes(
    scores: jax.Array,
    codes: jax.Array,
    regions: jax.Array,
    valid: jax.Array,
    size: jax.Array,
    settings: DetectionSettings,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The detections of one image: boxes `[D, 4]`, scores `[D]`, classes `[D]`, valid `[D]`.

    Of all pairs of a region and a class above `least_score` the best `candidates` are suppressed within
    their class. That equals suppression of each class on its own unless there are more.

    Args:
      scores: `[N, K]`, probabilities, those of background first.
      codes: `[N, K, 4]`.
      regions: `[N, 4]`.
      valid: bool `[N]`.
      size: height and width of the image on the canvas.
      settings: thresholds and numbers.
    """
    objects = jnp.where(valid[:, None], scores[:, 1:], 0.0)
    best, pairs = lax.top_k(objects.ravel(), min(settings.candidates, objects.size))
    region, label = pairs // objects.shape[1], pairs % objects.shape[1] + 1
    boxes = clip(decode(codes[region, label], regions[region], BOX_HEAD_WEIGHTS), size)
    usable = (best > settings.least_score) & (area(boxes) > 0)
    kept = suppress(*(boxes, best, usable), threshold=settings.threshold, count=settings.count, groups=label)
    return (
        jnp.where(kept.valid[:, None], boxes[kept.indices], 0.0),
        jnp.where(kept.valid, best[kept.indices], 0.0),
        jnp.where(kept.valid, label[kept.indices], 0),
        kept.valid,
    )
