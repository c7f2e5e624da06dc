"""The smallest detector with all parts, and random batches for it."""

import jax.numpy as jnp
import numpy as np

from evonorms_jax.detection.anchors import level_anchors
from evonorms_jax.detection.detector import MaskRcnn
from evonorms_jax.detection.forward import Choices, DetectionSettings
from evonorms_jax.detection.fpn import FeaturePyramid
from evonorms_jax.detection.heads import BoxHead, MaskHead, ProposalHead
from evonorms_jax.detection.proposals import ProposalSettings
from evonorms_jax.detection.regions import SamplingSettings
from evonorms_jax.detection.resnet import PyramidResNet
from evonorms_jax.detection.roi_align import RoiAlign
from evonorms_jax.detection.types import MASK_SIDE, TrainingBatch
from evonorms_jax.layers import norm_act
from evonorms_jax.models.resnet import ResNetStage
from support.detection_oracle import random_boxes

SIDE, SLOTS, CLASSES, LEVELS = 32, 6, 3, (2, 3)


def tiny_detector(layer="bn_relu", dtype=jnp.float32, **fields):
    """A detector with 8 channels everywhere; `fields` are those of the backbone."""
    norm = norm_act(layer, group_size=4)
    stages = tuple(ResNetStage(8, blocks=1, stride=2) for _ in LEVELS)
    backbone = PyramidResNet(norm, stages, "residual", 8, 3, stem_pool=False, dtype=dtype, **fields)
    return MaskRcnn(
        backbone,
        FeaturePyramid(norm, LEVELS, 8, dtype=dtype),
        ProposalHead(norm, 8, dtype=dtype),
        BoxHead(norm, CLASSES + 1, 0, 8, 1, 8, dtype),
        MaskHead(norm, CLASSES + 1, 1, 8, dtype),
        LEVELS[1],
    )


def tiny_choices(method="matmul"):
    """Settings with few proposals, samples and detections."""
    return Choices(
        level_anchors(SIDE, LEVELS, 2.0),
        ProposalSettings(train_candidates=24, test_candidates=24, count=16),
        SamplingSettings(anchors=32, positive_anchors=16, regions=12, positive_regions=4),
        RoiAlign(method, sampling_ratio=1),
        DetectionSettings(least_score=0.05, candidates=40, count=8),
        range(1, CLASSES + 1),
    )


def random_batch(seed, counts):
    """A batch of noise with `counts` objects in its images; every object is a full box or a half of it."""
    rng = np.random.default_rng(seed)
    size = len(counts)
    valid = np.arange(SLOTS)[None] < np.array(counts)[:, None]
    boxes = np.stack([random_boxes(rng, SLOTS, SIDE, 4, 20) for _ in counts]).clip(0, SIDE)
    masks = np.ones((size, SLOTS, MASK_SIDE, MASK_SIDE), np.uint8)
    masks[:, ::2, : MASK_SIDE // 2] = 0
    return TrainingBatch(
        rng.integers(0, 256, (size, SIDE, SIDE, 3)).astype(np.uint8),
        np.full((size, 2), SIDE, np.float32),
        np.where(valid[..., None], boxes, 0).astype(np.float32),
        np.where(valid, rng.integers(1, CLASSES + 1, valid.shape), 0).astype(np.int32),
        np.where(valid[..., None, None], masks, 0).astype(np.uint8),
        valid,
    )
