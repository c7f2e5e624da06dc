"""The losses against plain NumPy, on scenes with none to many objects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import detection_oracle as oracle

from evonorms_jax.detection import losses
from evonorms_jax.detection.anchors import level_anchors
from evonorms_jax.detection.matching import match_anchors
from evonorms_jax.detection.types import TrainingBatch

ANCHORS = np.concatenate(level_anchors(32, [3, 4], 2))
SLOTS = 100


def code(box, anchor, weights=(1, 1, 1, 1)):
    size, own = (np.array([b[2] - b[0], b[3] - b[1]], np.float64) for b in (box, anchor))
    centre, other = (np.array([b[0] + b[2], b[1] + b[3]], np.float64) / 2 for b in (box, anchor))
    return np.concatenate([(centre - other) / own, np.log(size / own)]) * weights


def huber(x, beta):
    return np.where(np.abs(x) < beta, x**2 / (2 * beta), np.abs(x) - beta / 2).sum()


@jax.jit
def proposal_losses(keys, logits, codes, batch):
    """With a sample of all anchors."""
    count = len(ANCHORS)
    return losses.proposal_losses(keys, logits, codes, ANCHORS, batch, count=count, positive_count=count)


@pytest.mark.parametrize("counts", [(0, 3), (100, 1)])
def test_the_proposal_losses_are_sums_over_the_sample(rng, counts):
    count = len(ANCHORS)
    logits = rng.normal(size=(2, count)).astype(np.float32)
    codes = rng.normal(size=(2, count, 4)).astype(np.float32)
    boxes = np.stack([oracle.random_boxes(rng, SLOTS, 32) for _ in counts])
    valid = np.arange(SLOTS)[None] < np.array(counts)[:, None]
    batch = TrainingBatch(None, None, boxes, None, None, valid)
    keys = jax.random.split(jax.random.key(0), 2)
    score, box = proposal_losses(keys, logits, codes, batch)
    expected = np.zeros(2)
    for i, objects in enumerate(counts):
        positive, negative = np.zeros(count, bool), np.ones(count, bool)
        if objects:
            owners, positive, negative = map(np.asarray, match_anchors(ANCHORS, boxes[i], valid[i]))
        x = logits[i].astype(np.float64)
        expected[0] += np.log1p(np.exp(-x[positive])).sum() + np.log1p(np.exp(x[negative])).sum()
        for n in np.flatnonzero(positive):
            expected[1] += huber(codes[i, n] - code(boxes[i, owners[n]], ANCHORS[n]), 1 / 9)
    np.testing.assert_allclose([score, box], expected / (2 * count), rtol=1e-4)


def test_the_losses_of_the_heads_are_those_of_plain_loops(rng):
    regions, boxes = (np.stack([oracle.random_boxes(rng, 5) for _ in range(2)]) for _ in range(2))
    classes = np.array([[2, 1, 0, 0, 0], [3, 0, 0, 0, 0]])
    positive, valid = classes > 0, np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
    logits = rng.normal(size=(2, 5, 4)).astype(np.float32)
    codes = rng.normal(size=(2, 5, 4, 4)).astype(np.float32)
    masks, targets = rng.normal(size=(2, 5, 6, 6)).astype(np.float32), rng.integers(0, 2, (2, 5, 6, 6))
    entropy = distance = pixels = 0.0
    for place in np.argwhere(valid):
        i, n = place
        entropy += np.log(np.exp(logits[i, n].astype(np.float64)).sum()) - logits[i, n, classes[i, n]]
        if positive[i, n]:
            target = code(boxes[i, n], regions[i, n], (10, 10, 5, 5))
            distance += huber(codes[i, n, classes[i, n]] - target, 1.0)
            sign = 1 - 2 * targets[i, n]
            pixels += np.log1p(np.exp(sign * masks[i, n].astype(np.float64))).mean()
    found = (
        losses.class_loss(logits, classes, valid),
        losses.box_loss(codes, regions, boxes, classes, positive, valid),
        losses.mask_loss(jnp.asarray(masks), targets.astype(np.float32), positive),
    )
    np.testing.assert_allclose(found, [entropy / 8, distance / 8, pixels / 3], rtol=1e-4)


def test_without_any_region_the_losses_and_gradients_are_zero():
    none = jnp.zeros((1, 3), bool)

    def total(logits, codes, masks):
        flat = jnp.zeros((1, 3, 4)), jnp.zeros((1, 3, 4)), jnp.zeros((1, 3), jnp.int32)
        return (
            losses.class_loss(logits, flat[2], none)
            + losses.box_loss(codes, *flat, none, none)
            + losses.mask_loss(masks, jnp.zeros((1, 3, 2, 2)), none)
        )

    arguments = jnp.ones((1, 3, 4)), jnp.ones((1, 3, 4, 4)), jnp.ones((1, 3, 2, 2))
    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(*arguments)
    assert value == 0
    assert not any(gradient.any() for gradient in gradients)
