"""The three resize conventions: 2x2 to 4x4 by hand, odd sizes, and channels."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from evonorms_jax.gan.resize import CONVENTIONS, preprocess, resize_matrix

CORNERS = np.array([[0, 100], [50, 200]], np.uint8)[None, :, :, None]
BY_HAND = {
    # Source positions 0, 0.5, 1, 1.5: the last one has no right neighbour.
    "tf1": [[0, 50, 100, 100], [25, 87.5, 150, 150], [50, 125, 200, 200], [50, 125, 200, 200]],
    # Source positions -0.25 (clamped to 0), 0.25, 0.75, 1.25 (its neighbour clamped).
    "pytorch": [
        [0, 25, 75, 100],
        [12.5, 40.625, 96.875, 125],
        [37.5, 71.875, 140.625, 175],
        [50, 87.5, 162.5, 200],
    ],
}
#: Weights of the left pixel of two at distances 0.25, 0.25, 0.75 and 1.25, normalized with its partner's.
_NEAR, _MIDDLE, _FAR = 0.8671875, 0.2265625, -0.0703125
_LEFT = np.array(
    [_NEAR / (_NEAR + _FAR), _NEAR / (_NEAR + _MIDDLE), _MIDDLE / (_NEAR + _MIDDLE), _FAR / (_NEAR + _FAR)]
)
_R = np.stack([_LEFT, 1 - _LEFT], axis=1)
BY_HAND["clean"] = _R @ CORNERS[0, :, :, 0] @ _R.T


def scaled(values, convention):
    values = np.asarray(values)
    return 2 * values / 255 - 1 if convention == "pytorch" else (values - 128) / 128


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_two_by_two_to_four_by_four_by_hand(convention):
    found = preprocess(jnp.asarray(CORNERS), convention, side=4)
    assert found.shape == (1, 4, 4, 3)
    for channel in range(3):  # grey is repeated
        np.testing.assert_allclose(
            found[0, :, :, channel], scaled(BY_HAND[convention], convention), atol=1e-6
        )


def test_the_conventions_differ():
    found = [np.asarray(preprocess(jnp.asarray(CORNERS), convention, side=4)) for convention in CONVENTIONS]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(found[first] - found[second]).max() > 0.1


@pytest.mark.parametrize("shape", [(28, 28), (37, 301), (512, 299)])
def test_clean_is_pillow_at_any_size(rng, shape):
    image = rng.integers(0, 256, shape).astype(np.float32)
    expected = Image.fromarray(image).resize((299, 299), Image.Resampling.BICUBIC)
    rows, columns = (resize_matrix("clean", size, 299) for size in shape)
    np.testing.assert_allclose(rows @ image @ columns.T, np.asarray(expected), atol=2e-3)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_a_constant_image_stays_constant_and_a_full_one_unchanged(convention):
    for size in (1, 31, 299, 500):
        np.testing.assert_allclose(resize_matrix(convention, size, 299).sum(1), 1)
    np.testing.assert_allclose(resize_matrix(convention, 299, 299), np.eye(299), atol=1e-12)


def test_wrong_images_are_refused():
    for channels, message in ((4, "without alpha, got 4"), (2, "got 2 channels")):
        with pytest.raises(ValueError, match=message):
            preprocess(jnp.zeros((1, 5, 5, channels), jnp.uint8), "tf1")
    with pytest.raises(ValueError, match=r"images uint8 \[N, H, W, C\], got float32"):
        preprocess(jnp.zeros((1, 5, 5, 3)), "tf1")
    with pytest.raises(ValueError, match="resize must be one of tf1, pytorch, clean"):
        resize_matrix("bilinear", 4, 4)
