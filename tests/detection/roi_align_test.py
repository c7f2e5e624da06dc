"""RoIAlign reads the right places, in both forms, and mask targets are where the object is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import detection_oracle as oracle

from evonorms_jax.detection.mask_targets import crop_masks
from evonorms_jax.detection.roi_align import METHODS, RoiAlign, region_levels
from evonorms_jax.errors import UserError
from evonorms_jax.search_space.target import building_for

LEVELS = (2, 3, 4)
SIDE = 64
# Inside, across levels, at and beyond the borders, thin, and empty.
REGIONS = np.array(
    [
        *([5.3, 7.1, 20.9, 30.2], [0, 0, 64, 64], [40.5, 50.2, 70.0, 80.0], [-9, -5, 3, 4.5]),
        *([10, 10, 10.3, 30], [12, 33, 44, 33.3], [20, 20, 20, 20], [1, 2, 60, 20], [3, 3, 35, 35]),
    ],
    np.float32,
)


def pyramid(rng, channels=3):
    return {
        level: rng.normal(size=(2, SIDE >> level, SIDE >> level, channels)).astype(np.float32)
        for level in LEVELS
    }


@functools.partial(jax.jit, static_argnums=(0, 3))
def pooled(align, maps, regions, bins):
    return align(maps, regions, bins)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("aligned", "ratio"), [(True, 2), (False, 1)])
def test_both_forms_equal_plain_loops(rng, method, aligned, ratio):
    maps = pyramid(rng)
    align = RoiAlign(method, ratio, aligned, canonical_side=32.0)
    regions = np.stack([REGIONS, REGIONS[::-1]])
    found = pooled(align, maps, regions, 4)
    levels = region_levels(regions, 2, 4, 32.0)
    assert set(np.asarray(levels).ravel().tolist()) == set(LEVELS)
    for b in range(2):
        image = {level: features[b] for level, features in maps.items()}
        for n in range(len(REGIONS)):
            expected = oracle.roi_align(
                image, regions[b, n], int(levels[b, n]), 4, aligned=aligned, ratio=ratio
            )
            np.testing.assert_allclose(found[b, n], expected, atol=1e-5)


def test_the_forms_of_matmul_for_a_cpu_and_for_a_tpu_agree(rng):
    maps = pyramid(rng)
    regions = np.stack([REGIONS, REGIONS[::-1]])
    align = RoiAlign("matmul", canonical_side=32.0)
    found = pooled(align, maps, regions, 4)
    with building_for("tpu"):
        other = pooled(align, maps, regions, 4)
    np.testing.assert_allclose(found, other, atol=1e-5)


def test_both_forms_have_the_same_gradient(rng):
    maps, weight = pyramid(rng), rng.normal(size=(2, len(REGIONS), 4, 4, 3)).astype(np.float32)
    regions = np.stack([REGIONS, REGIONS[::-1]])

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=(1, 2))
    def gradient(method, maps, regions):
        return jnp.sum(RoiAlign(method, canonical_side=32.0)(maps, regions, 4) * weight)

    (one, still), (other, _) = (gradient(method, maps, regions) for method in METHODS)
    assert not still.any()  # features alone have a gradient
    for level in LEVELS:
        np.testing.assert_allclose(one[level], other[level], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_ramp_gives_the_coordinates_of_the_bins_at_every_level(method):
    maps = {}
    for level in LEVELS:
        places = np.arange(SIDE >> level, dtype=np.float32) + 0.5
        maps[level] = np.stack(np.meshgrid(places, places, indexing="ij"), -1)[None]
    for side in (0.3, 6.0, 14.0, 30.0):
        regions = np.array([[[20.4, 17.3, 20.4 + side, 17.3 + side]]], np.float32)
        level = int(region_levels(regions, 2, 4, 16.0)[0, 0])
        found = pooled(RoiAlign(method, canonical_side=16.0), maps, regions, 7)[0, 0]
        bins = (np.arange(7) + 0.5) / 7 * side
        np.testing.assert_allclose(found[:, 0, 0], (20.4 + bins) / 2**level, atol=1e-5)
        np.testing.assert_allclose(found[0, :, 1], (17.3 + bins) / 2**level, atol=1e-5)


def test_a_shift_by_a_stride_shifts_the_features_alone(rng):
    features = rng.normal(size=(1, 16, 16, 2)).astype(np.float32)
    region = np.array([[[9.0, 10.5, 30.0, 25.0]]], np.float32)
    align = RoiAlign(canonical_side=1e4)
    one = align({2: features}, region, 7)
    other = align({2: np.roll(features, (1, 2), (1, 2))}, region + np.array([4, 8, 4, 8], np.float32), 7)
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_level_follows_the_area_of_a_region():
    sides = np.array([1, 111, 112, 223, 224, 448, 896, 5000], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], -1)
    assert region_levels(boxes, 2, 6).tolist() == [2, 2, 3, 3, 4, 5, 6, 6]


def test_bfloat16_features_keep_the_geometry(rng):
    maps = pyramid(rng)
    regions = np.stack([REGIONS, REGIONS])
    low = {level: jnp.asarray(features, jnp.bfloat16) for level, features in maps.items()}
    exact = pooled(RoiAlign("gather"), {k: v.astype(jnp.float32) for k, v in low.items()}, regions, 4)
    for method in METHODS:
        found = pooled(RoiAlign(method), low, regions, 4)
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=0.05)


def test_an_unknown_form_is_refused(rng):
    with pytest.raises(UserError, match="unknown RoIAlign method 'bilinear'; there are gather, matmul"):
        RoiAlign("bilinear")(pyramid(rng), np.stack([REGIONS, REGIONS]), 4)


def test_the_mask_of_the_box_itself_is_the_stored_mask_on_the_grid():
    mask = np.zeros((1, 112, 112), np.uint8)
    mask[0, 28:84, 56:] = 1
    box = np.array([[10.0, 20.0, 38.0, 76.0]], np.float32)
    found = np.asarray(crop_masks(mask, box, box, 28))[0]
    expected = np.zeros((28, 28))
    expected[7:21, 14:] = 1
    np.testing.assert_array_equal(found, expected)


def test_a_mask_target_is_the_object_where_the_region_lies(rng):
    # A filled ellipse, in closed form on the canvas.
    box = np.array([8.0, 12.0, 40.0, 52.0])
    regions = oracle.random_boxes(rng, 6, extent=60, least=12, most=50)
    centre, radius = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2

    def inside(points_y, points_x):
        y, x = (points_y - centre[0]) / radius[0], (points_x - centre[1]) / radius[1]
        return y[:, None] ** 2 + x[None] ** 2

    stored = (np.arange(112) + 0.5) / 112
    mask = inside(*(box[i] + stored * (box[i + 2] - box[i]) for i in range(2))) < 1
    found = crop_masks(np.repeat(mask[None], 6, 0), np.repeat(box[None], 6, 0), regions, 28)
    bins = (np.arange(28) + 0.5) / 28
    for region, target in zip(regions, np.asarray(found), strict=True):
        distance = inside(*(region[i] + bins * (region[i + 2] - region[i]) for i in range(2)))
        clear = np.abs(distance - 1) > 0.1
        np.testing.assert_array_equal(target[clear], (distance < 1)[clear])
