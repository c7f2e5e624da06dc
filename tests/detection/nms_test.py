"""Suppression equals the greedy loop, for any threshold and with classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import detection_oracle as oracle

from evonorms_jax.detection.nms import suppress

COUNT = 24


def scene(seed):
    """Unsorted boxes with ties of scores, duplicates, empty boxes and slots that are not valid."""
    rng = np.random.default_rng(seed)
    boxes = np.round(oracle.random_boxes(rng, COUNT, extent=30))
    boxes[5], boxes[6] = boxes[2], boxes[7]
    boxes[8, 2] = boxes[8, 0]
    boxes[9] = 0
    scores = rng.integers(0, 8, COUNT) / 8
    return boxes, scores.astype(np.float32), rng.uniform(size=COUNT) < 0.9, rng.integers(0, 3, COUNT)


@functools.partial(jax.jit, static_argnames="classes")
@functools.partial(jax.vmap, in_axes=(0, 0, 0, 0, None, None))
def suppressed(boxes, scores, valid, groups, threshold, classes):
    groups = groups if classes else None
    return suppress(boxes, scores, valid, threshold=threshold, count=COUNT, groups=groups)


@pytest.mark.parametrize("classes", [False, True])
def test_it_equals_the_greedy_loop_on_200_scenes(classes):
    scenes = [scene(seed) for seed in range(200)]
    for threshold in (0.3, 0.5, 0.7):
        found = suppressed(*map(np.stack, zip(*scenes, strict=True)), threshold, classes)
        for i, (boxes, scores, valid, groups) in enumerate(scenes):
            expected = oracle.greedy_suppression(boxes, scores, valid, threshold, groups if classes else None)
            kept = np.asarray(found.indices[i])[np.asarray(found.valid[i])]
            assert kept.tolist() == expected


def test_a_box_that_is_itself_suppressed_suppresses_nothing():
    # Each box overlaps its neighbour by 0.43: the first, third and fifth remain at 0.3.
    boxes = jnp.array([[0.0, 4.0 * i, 10.0, 4.0 * i + 10.0] for i in range(5)])
    found = suppress(boxes, jnp.arange(5, 0, -1.0), jnp.ones(5, bool), threshold=0.3, count=5)
    assert found.indices[found.valid].tolist() == [0, 2, 4]


def test_large_class_numbers_change_nothing():
    boxes, scores, valid, groups = scene(3)
    one = suppress(boxes, scores, valid, threshold=0.5, count=COUNT, groups=groups)
    other = suppress(boxes, scores, valid, threshold=0.5, count=COUNT, groups=groups * 10_000)
    assert one.indices.tolist() == other.indices.tolist()


def test_the_count_cuts_off_and_fills_up():
    boxes = jnp.array([[0.0, 20.0 * i, 10.0, 20.0 * i + 10.0] for i in range(3)])
    few = suppress(boxes, jnp.array([0.1, 0.9, 0.5]), jnp.ones(3, bool), threshold=0.5, count=2)
    assert few.indices.tolist() == [1, 2] and few.valid.all()
    many = suppress(boxes, jnp.array([0.1, 0.9, 0.5]), jnp.ones(3, bool), threshold=0.5, count=5)
    assert many.indices.tolist() == [1, 2, 0, 0, 0] and many.valid.tolist() == [True] * 3 + [False] * 2
