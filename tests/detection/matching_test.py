"""Anchors and regions find their objects, and random subsets are of the right size."""

import jax
import jax.numpy as jnp
import numpy as np
from support import detection_oracle as oracle

from evonorms_jax.detection.anchors import level_anchors
from evonorms_jax.detection.matching import match_anchors, match_regions
from evonorms_jax.detection.sampling import sample

ANCHORS = np.concatenate(level_anchors(64, [2, 3, 4], 4))
SLOTS = 12
match = jax.jit(match_anchors)


def slots(boxes):
    padded = np.zeros((SLOTS, 4), np.float32)
    if len(boxes):
        padded[: len(boxes)] = boxes
    return padded, np.arange(SLOTS) < len(boxes)


def test_anchors_match_as_in_plain_loops(rng):
    for count in (1, 4, SLOTS):
        boxes = oracle.random_boxes(rng, count, least=3, most=60)
        objects, positive, negative = map(np.asarray, match(ANCHORS, *slots(boxes)))
        overlap = oracle.overlaps(ANCHORS, boxes)
        large = overlap.max(1) >= 0.7
        # Anchors around an object overlap it equally, so that digits decide between them.
        best = overlap > overlap.max(0) - 1e-6
        owned = positive[:, None] & (objects[:, None] == np.arange(count)[None])
        assert (owned & best).any(0).all()
        assert (large | (owned & best).any(1))[positive].all() and positive[large].all()
        closest = overlap[np.arange(len(ANCHORS)), objects] > overlap.max(1) - 1e-6
        assert (closest | (owned & best).any(1))[positive].all()
        np.testing.assert_array_equal(negative, ~positive & (overlap.max(1) < 0.3))


def test_every_object_of_any_size_has_a_positive_anchor(rng):
    cells = 21.0 * np.stack(np.meshgrid(range(3), range(3), indexing="ij"), -1).reshape(-1, 2)
    for side in (0.5, 1.0, 3.0, 20.0):
        corners = cells + rng.uniform(0, 1, cells.shape)
        boxes = np.concatenate([corners, corners + side], 1).astype(np.float32)
        found = match(ANCHORS, *slots(boxes))
        owners = np.asarray(found.objects)[np.asarray(found.positive)]
        assert set(owners.tolist()) == set(range(9))


def test_empty_slots_and_far_objects_make_nothing_positive():
    found = match(ANCHORS, *slots([]))
    assert not found.positive.any() and found.negative.all()
    far = match(ANCHORS, *slots([[1000.0, 1000.0, 1010.0, 1010.0]]))
    assert not far.positive.any() and far.negative.all()


def test_two_objects_with_the_same_best_anchor_leave_it_to_the_lower_slot():
    boxes = [[30.0, 30.0, 33.0, 33.0], [30.0, 30.0, 33.0, 33.0]]
    found = match(ANCHORS, *slots(boxes))
    assert np.asarray(found.objects)[np.asarray(found.positive)].tolist() == [0]


def test_regions_match_above_one_half_and_else_are_background():
    regions = jnp.array([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 5.1], [40, 40, 50, 50], [0, 0, 10, 10.0]])
    boxes, valid = slots([[0.0, 0.0, 10.0, 10.0]])
    found = match_regions(regions, jnp.arange(5) < 4, boxes, valid)
    assert found.positive.tolist() == [True, False, True, False, False]
    assert found.negative.tolist() == [False, True, False, True, False]
    empty = match_regions(regions, jnp.arange(5) < 4, boxes, valid & False)
    assert empty.negative.tolist() == [True] * 4 + [False]


draw = jax.jit(sample, static_argnums=(3, 4))


def test_a_sample_has_the_positive_ones_first_and_fills_up_with_negatives(rng):
    kinds = rng.integers(0, 3, 200)
    kinds[:] = np.where(kinds == 1, (rng.uniform(size=200) < 0.1), kinds)
    for most in (4, 64):
        found = draw(jax.random.key(0), kinds == 1, kinds == 0, 64, most)
        taken = min(most, int((kinds == 1).sum()))
        assert found.valid.all()
        assert found.positive.tolist() == [True] * taken + [False] * (64 - taken)
        assert len(set(found.indices.tolist())) == 64
        np.testing.assert_array_equal(kinds[found.indices] == 1, found.positive)
        np.testing.assert_array_equal(kinds[found.indices] == 0, ~found.positive)


def test_a_sample_of_too_few_candidates_says_which_places_are_empty():
    positive, negative = jnp.arange(8) == 5, jnp.arange(8) >= 6
    found = draw(jax.random.key(0), positive, negative, 16, 4)
    assert found.valid.tolist() == [True] * 3 + [False] * 13
    assert found.indices[0] == 5 and set(found.indices[1:3].tolist()) == {6, 7}
    none = draw(jax.random.key(0), positive & False, negative & False, 16, 4)
    assert not none.valid.any() and not none.indices.any()


def test_all_candidates_are_equally_likely():
    positive = jnp.arange(10) < 4
    keys = jax.random.split(jax.random.key(1), 4000)
    found = jax.vmap(lambda key: sample(key, positive, ~positive, 4, 2))(keys)
    counts = np.bincount(np.asarray(found.indices).ravel(), minlength=10) / 4000
    np.testing.assert_allclose(counts, [0.5] * 4 + [1 / 3] * 6, atol=0.04)
