"""Sheets: rows are classes, columns share a latent, and interpolations go from end to end."""

import numpy as np
import pytest
from PIL import Image

from evonorms_jax.gan import sheets


def sample(labels, seed):
    """Grey that tells the class, its right half the number of the image in the call."""
    images = np.zeros((len(labels), 4, 4, 1), np.uint8)
    images[:, :, :2] = 10 * labels[:, None, None, None]
    images[:, :, 2:] = (seed + np.arange(len(labels)))[:, None, None, None]
    return images


def test_rows_are_classes_and_columns_share_a_latent():
    sheet = sheets.class_sheet(sample, 3, seed=7, columns=5)
    assert sheet.shape == (3, 5, 4, 4, 1)
    assert (sheet[:, :, 0, 0, 0] == 10 * np.arange(3)[:, None]).all()
    assert (sheet[:, :, 0, 3, 0] == 7 + np.arange(5)).all()


def test_many_classes_are_spread_over_the_rows():
    assert sheets.shown_classes(3).tolist() == [0, 1, 2]
    shown = sheets.shown_classes(1000)
    assert len(shown) == sheets.MOST_ROWS and shown[0] == 0 and shown[-1] == 999 and shown.dtype == np.int32


def test_each_truncation_has_its_own_sampler():
    samplers = {0.5: lambda labels, seed: sample(labels, 50), 1.0: lambda labels, seed: sample(labels, 100)}
    sheet = sheets.truncation_sheet(samplers, 4, seed=0)
    assert sheet.shape == (2, 4, 4, 4, 1) and sheet[:, 0, 0, 3, 0].tolist() == [50, 100]


def test_interpolations_reach_both_ends_in_equal_steps():
    def generate(z, weights):
        """The first latent and the mean class."""
        values = np.stack([z[:, 0], weights @ np.arange(3)], 1)
        return values.reshape(-1, 1, 1, 2)

    latents = np.array([[0.0], [4], [9], [13]], np.float32)
    found = sheets.interpolations(generate, latents, 3, seed=0)
    assert {name: sheet.shape for name, sheet in found.items()} == dict.fromkeys(
        ("latent", "class", "both"), (2, 10, 1, 1, 2)
    )
    np.testing.assert_allclose(found["latent"][0, :, 0, 0, 0], np.arange(10), rtol=1e-6)
    np.testing.assert_allclose(found["latent"][1, :, 0, 0, 1], 1)
    np.testing.assert_allclose(found["class"][1, :, 0, 0, 0], 4)
    steps = np.diff(found["both"][:, :, 0, 0], axis=1)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[:, :1], steps.shape), atol=1e-5)
    assert (np.abs(steps[:, 0]) > 0.1).all()


@pytest.mark.parametrize(("side", "channels", "size"), [(28, 1, 56), (64, 3, 64)])
def test_a_sheet_is_a_picture(tmp_path, rng, side, channels, size):
    images = rng.integers(0, 256, (2, 3, side, side, channels), np.uint8)
    sheets.write_sheet(tmp_path / "sheet.png", images)
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.size == (3 * size + 4, 2 * size + 2)
        pixels = np.asarray(picture).reshape(2 * size + 2, 3 * size + 4, channels)
    np.testing.assert_array_equal(pixels[size + 2 :: size // side, : size : size // side], images[1, 0])
