"""Overlap, code and clipping of boxes, and the anchors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import detection_oracle as oracle

from evonorms_jax.detection.anchors import level_anchors
from evonorms_jax.detection.boxes import BOX_HEAD_WEIGHTS, PROPOSAL_WEIGHTS, clip, decode, encode, overlaps


def test_overlaps_are_those_of_plain_loops(rng):
    first = np.concatenate([oracle.random_boxes(rng, 20), [[3, 3, 3, 9], [5, 5, 5, 5]]]).astype(np.float32)
    found = overlaps(first, first)
    np.testing.assert_allclose(found, oracle.overlaps(first, first), atol=1e-6)
    assert float(overlaps(jnp.zeros((1, 4)), jnp.zeros((1, 4)))[0, 0]) == 0.0


def test_there_is_no_pixel_added_to_a_side():
    boxes = jnp.array([[0.0, 0.0, 2.0, 2.0]])
    assert float(overlaps(boxes, jnp.array([[0.0, 1.0, 2.0, 3.0]]))[0, 0]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("weights", [PROPOSAL_WEIGHTS, BOX_HEAD_WEIGHTS])
def test_a_code_decodes_to_its_box(rng, weights):
    boxes, anchors = oracle.random_boxes(rng, 50), oracle.random_boxes(rng, 50)
    code = encode(boxes, anchors, weights)
    np.testing.assert_allclose(decode(code, anchors, weights), boxes, atol=1e-4)
    height = boxes[:, 2] - boxes[:, 0]
    expected = weights[2] * np.log(height / (anchors[:, 2] - anchors[:, 0]))
    np.testing.assert_allclose(code[:, 2], expected, atol=1e-4)


def test_extreme_codes_and_empty_boxes_stay_finite():
    anchors = jnp.array([[0.0, 0.0, 16.0, 16.0]])
    huge = decode(jnp.full((1, 4), 1e3), anchors, PROPOSAL_WEIGHTS)
    assert float(huge[0, 2] - huge[0, 0]) == pytest.approx(1000.0, rel=1e-5)
    assert np.isfinite(encode(jnp.zeros((1, 4)), anchors, BOX_HEAD_WEIGHTS)).all()
    assert np.isfinite(encode(anchors, jnp.zeros((1, 4)), BOX_HEAD_WEIGHTS)).all()


def test_boxes_are_cut_off_at_the_image():
    boxes = jnp.array([[[-5.0, -5.0, 50.0, 50.0]], [[2.0, 30.0, 8.0, 60.0]]])
    found = jax.vmap(clip)(boxes, jnp.array([[20.0, 30.0], [20.0, 30.0]]))
    assert found.tolist() == [[[0, 0, 20, 30]], [[2, 30, 8, 30]]]


def test_the_number_of_anchors_is_the_published_one():
    assert sum(map(len, level_anchors(1024, range(2, 7), 8))) == 261_888
    assert sum(map(len, level_anchors(1024, range(3, 8), 3))) == 65_472


def test_anchors_have_their_centres_sizes_and_order():
    anchors = level_anchors(64, [2, 3], 4, (1.0, 2.0, 0.5))
    assert [one.shape for one in anchors] == [(16 * 16 * 3, 4), (8 * 8 * 3, 4)]
    first = anchors[0].reshape(16, 16, 3, 4)
    assert first[0, 0, 0].tolist() == [2 - 8, 2 - 8, 2 + 8, 2 + 8]
    assert first[3, 5, 0].tolist() == [14 - 8, 22 - 8, 14 + 8, 22 + 8]
    height, width = (first[2, 2, :, i + 2] - first[2, 2, :, i] for i in range(2))
    np.testing.assert_allclose(width / height, [1, 2, 0.5], rtol=1e-6)
    np.testing.assert_allclose(width * height, 16.0**2, rtol=1e-6)
    np.testing.assert_allclose(anchors[1][0], [4 - 16, 4 - 16, 4 + 16, 4 + 16])
