"""Parts of photographs: where they lie, how they are decoded and resized."""

import functools

import cv2
import numpy as np
import pytest
import simplejpeg
from support.data_sets import RARE, encode, photograph

from evonorms_jax.data import photographs, pictures
from evonorms_jax.data.photographs import Box, DamagedPictureError, decode_crop


def smooth(rng, height, width):
    """A smooth picture, uint8 `[height, width, 3]`."""
    coarse = rng.uniform(0, 255, (4, 5, 3)).astype(np.float32)
    fine = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(fine, 0, 255).astype(np.uint8)


def always(box):
    return lambda height, width: box


# -- Parts


def test_random_parts_cover_the_ranges_of_area_and_aspect(rng):
    boxes = np.array([photographs.random_resized(rng, 375, 500) for _ in range(2000)])
    top, left, height, width = boxes.T
    assert top.min() >= 0 and left.min() >= 0
    assert (top + height).max() <= 375 and (left + width).max() <= 500
    area, aspect = height * width / (375 * 500), width / height
    assert 0.079 < area.min() < 0.1 and 0.9 < area.max() <= 1
    assert 0.745 < aspect.min() < 0.77 and 1.3 < aspect.max() < 1.345
    small = area < 0.5  # large parts that are high do not fit into a picture that is broad
    assert abs(np.mean(area[small]) - 0.29) < 0.015 and abs(np.mean(np.log(aspect[small]))) < 0.02
    assert abs((top / np.maximum(375 - height, 1))[height < 300].mean() - 0.5) < 0.03
    assert abs((left / np.maximum(500 - width, 1)).mean() - 0.5) < 0.03


def test_what_no_part_fits_into_gives_its_central_square(rng):
    assert photographs.random_resized(rng, 5, 4000) == Box(0, 1998, 5, 5)
    assert photographs.random_resized(rng, 1, 1) == Box(0, 0, 1, 1)


@pytest.mark.parametrize(
    ("size", "height", "width", "box"),
    [
        (224, 375, 500, Box(24, 86, 328, 328)),  # int(375 * 224 / 256)
        (300, 375, 500, Box(19, 81, 338, 338)),  # int(375 * 300 / 332)
        (96, 500, 375, Box(86, 24, 328, 328)),  # 87.5 % where the rule gives 75 %
        (224, 1, 7, Box(0, 3, 1, 1)),
    ],
)
def test_the_evaluated_square_is_that_of_the_released_code(size, height, width, box):
    assert photographs.central(photographs.evaluated_share(size), height, width) == box


def test_scaled_boxes_stay_within_the_picture(rng):
    for _ in range(200):
        height, width = rng.integers(1, 90, 2)
        box = photographs.random_resized(rng, int(height), int(width))
        rows, columns = -(-height // 8), -(-width // 8)
        top, left, high, wide = box.scaled((height, width), (rows, columns))
        assert 0 <= top < top + high <= rows and 0 <= left < left + wide <= columns


# -- Decoding


@pytest.mark.parametrize("kind", ["colour", *RARE])
def test_every_format_shows_the_same(rng, kind):
    image = smooth(rng, 41, 53)
    image[:] = image[..., :1]  # grey, which all of them can show
    whole = decode_crop(encode(image, kind), always(Box(0, 0, 41, 53)), 29)
    part = decode_crop(encode(image, kind), always(Box(5, 7, 29, 29)), 29)
    assert whole.shape == part.shape == (29, 29, 3) and whole.dtype == part.dtype == np.uint8
    difference = part.astype(int) - image[5:34, 7:36]
    assert np.abs(difference).max() <= (12 if kind == "palette" else 4)
    reference = cv2.resize(image, (29, 29), interpolation=cv2.INTER_AREA)
    assert np.abs(whole.astype(int) - reference).mean() < 3


def test_the_channels_are_red_green_blue():
    image = np.broadcast_to(np.uint8([200, 100, 20]), (40, 40, 3))
    for kind in ("colour", "cmyk", "palette", "alpha", "surplus"):
        shown = decode_crop(encode(image, kind), always(Box(0, 0, 40, 40)), 8)
        assert np.abs(shown.astype(int) - image[0, 0]).max() < 4


@pytest.mark.parametrize(
    ("size", "decoded"), [(64, (256, 320)), (33, (256, 320)), (32, (128, 160)), (16, (64, 80)), (4, (32, 40))]
)
def test_a_jpeg_is_decoded_no_larger_than_need_be(rng, monkeypatch, size, decoded):
    seen = []
    original = simplejpeg.decode_jpeg

    def watch(*args, **settings):
        seen.append(original(*args, **settings))
        return seen[-1]

    image = smooth(rng, 256, 320)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", watch)
    part = decode_crop(encode(image), always(Box(40, 60, 64, 64)), size)
    assert [pixels.shape[:2] for pixels in seen] == [decoded]
    reference = cv2.resize(image[40:104, 60:124], (size, size), interpolation=cv2.INTER_AREA)
    assert np.abs(part.astype(int) - reference).max() < 12  # a pixel of the smallest is 8 of the picture


def test_a_part_smaller_than_wanted_is_enlarged_smoothly(rng):
    image = smooth(rng, 40, 40)
    part = decode_crop(encode(image), always(Box(10, 10, 6, 20)), 60)
    reference = cv2.resize(image[10:16, 10:30], (60, 60), interpolation=cv2.INTER_LINEAR)
    assert np.abs(part.astype(int) - reference).max() < 6


def test_sixteen_bits_are_scaled_and_not_cut_off():
    image = np.tile(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], (50, 1, 3))
    np.testing.assert_array_equal(pictures.decode(encode(image, "sixteen_bits"), 3, None), image)


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (photograph(0, "truncated"), "truncated"),
        (photograph(0)[:200], "Truncated"),
        (photograph(0, "alpha")[:60], "."),
        (b"", "no picture format"),
        (b"\xff\xd8\xff\xe0", "no picture format"),
        (b"no picture", "no picture format"),
    ],
)
def test_damage_is_told_in_a_line(encoded, reason):
    with pytest.raises(DamagedPictureError, match=reason) as caught:
        decode_crop(encoded, functools.partial(photographs.central, 1.0), 8)
    assert str(caught.value) and "\n" not in str(caught.value) and "0x" not in str(caught.value)


def test_a_bomb_is_damage(monkeypatch):
    monkeypatch.setattr(photographs.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DamagedPictureError, match="exceeds limit"):
        decode_crop(photograph(3, "alpha"), functools.partial(photographs.central, 1.0), 8)
