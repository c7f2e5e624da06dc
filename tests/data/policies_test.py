"""RandAugment and AutoAugment: every operation, the magnitudes, and the draws."""

import numpy as np
import pytest
from PIL import Image

from evonorms_jax.data import policies
from evonorms_jax.data.policies import OPERATIONS, AutoAugment, Choice, RandAugment

# The amount with which an operation does nothing, and one with which it does something.
AMOUNTS = {
    "identity": (0, None),
    "autocontrast": (None, 0),
    "equalize": (None, 0),
    "invert": (None, 0),
    "shear_x": (0, 0.3),
    "shear_y": (0, -0.2),
    "translate_x": (0, 0.45),
    "translate_y": (0, -0.2),
    "rotate": (0, 30),
    "posterize": (8, 4),
    "solarize": (256, 100),
    "color": (1, 1.9),
    "contrast": (1, 0.1),
    "brightness": (1, 1.9),
    "sharpness": (1, 0.1),
}


@pytest.fixture
def image(rng):
    """Uint8 `[24, 32, 3]`, neither the darkest nor the lightest levels, which autocontrast would keep."""
    return rng.integers(40, 200, (24, 32, 3), dtype=np.uint8)


def apply(name, image, amount):
    return np.asarray(OPERATIONS[name](Image.fromarray(image), amount))


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_keeps_shape_and_dtype(image, name):
    nothing, something = AMOUNTS[name]
    if nothing is not None:
        np.testing.assert_array_equal(apply(name, image, nothing), image)
    if something is not None:
        changed = apply(name, image, something)
        assert changed.shape == image.shape and changed.dtype == np.uint8
        assert np.mean(changed != image) > 0.1


def test_what_operations_do_to_pixels(image):
    np.testing.assert_array_equal(apply("invert", image, 0), 255 - image)
    np.testing.assert_array_equal(apply("posterize", image, 3), image & 0b11100000)
    np.testing.assert_array_equal(apply("solarize", image, 100), np.where(image < 100, image, 255 - image))
    np.testing.assert_array_equal(apply("brightness", image, 0.5), image // 2)
    stretched = apply("autocontrast", image, 0)
    assert stretched.min() == 0 and stretched.max() == 255
    large = image.repeat(10, axis=0)
    levels = np.bincount(apply("equalize", large, 0)[..., 0].ravel(), minlength=256).cumsum() / (240 * 32)
    assert np.abs(levels - np.linspace(0, 1, 256)).max() < 0.05
    grey = apply("color", image, 0)
    np.testing.assert_array_equal(grey, np.repeat(grey[..., :1], 3, 2))


def test_gaps_are_filled_with_grey(image):
    moved = apply("translate_x", image, 0.25)
    np.testing.assert_array_equal(moved[:, :24], image[:, 8:])
    assert np.all(moved[:, 24:] == 128)
    moved = apply("translate_y", image, -0.5)
    np.testing.assert_array_equal(moved[12:], image[:12])
    assert np.all(moved[:12] == 128)
    assert np.all(apply("rotate", image, 30)[0, 0] == 128)
    assert np.all(apply("shear_x", image, 0.3)[-1, -1] == 128)
    assert np.all(apply("shear_y", image, 0.3)[-1, -1] == 128)


def test_amounts_beyond_the_ranges_do_not_turn_round(image):
    np.testing.assert_array_equal(apply("brightness", image, -0.7), apply("brightness", image, 0))
    np.testing.assert_array_equal(apply("posterize", image, -3), apply("posterize", image, 1))
    np.testing.assert_array_equal(apply("solarize", image, -400), 255 - image)


# RandAugment


def test_randaugment_without_magnitude_moves_and_recolours_nothing(image, rng, monkeypatch):
    names = [name for name in policies.RANDAUGMENT_OPERATIONS if name not in ("autocontrast", "equalize")]
    assert len(policies.RANDAUGMENT_OPERATIONS) == 14 and len(names) == 12
    monkeypatch.setattr(policies, "RANDAUGMENT_OPERATIONS", names)
    for _ in range(50):
        np.testing.assert_array_equal(RandAugment(layers=2, magnitude=0)(rng, image), image)
    changed = [np.any(RandAugment(2, 9)(rng, image) != image) for _ in range(50)]
    assert sum(changed) > 40


def test_randaugment_does_as_many_operations_as_it_has_layers(image, rng, monkeypatch):
    done = []

    def note(name):
        return lambda picture, amount: done.append((name, amount)) or picture

    monkeypatch.setattr(policies, "OPERATIONS", {name: note(name) for name in OPERATIONS})
    for _ in range(700):
        np.testing.assert_array_equal(RandAugment(layers=3, magnitude=5)(rng, image), image)
    assert len(done) == 2100
    drawn = {name: [amount for each, amount in done if each == name] for name in OPERATIONS}
    assert not drawn.pop("invert")
    assert all(100 < len(amounts) < 200 for amounts in drawn.values())  # 150 expected, standard deviation 12
    halves = {"rotate": {-15, 15}, "posterize": {6}, "solarize": {128}, "color": {0.55, 1.45}}
    for name, expected in halves.items():
        assert {round(amount, 9) for amount in drawn[name]} == expected
    assert 0.3 < np.mean(np.array(drawn["rotate"]) > 0) < 0.7


# AutoAugment


def test_autoaugment_has_the_25_published_sub_policies():
    assert len(policies.IMAGENET) == 25 and all(len(pair) == 2 for pair in policies.IMAGENET)
    names = [choice.name for pair in policies.IMAGENET for choice in pair]
    used = {"equalize": 17, "rotate": 6, "posterize": 5, "solarize": 7, "color": 6, "invert": 3}
    used |= {"autocontrast": 2, "contrast": 2, "sharpness": 1, "shear_x": 1}
    assert {name: names.count(name) for name in set(names)} == used


@pytest.mark.parametrize(
    ("choice", "amounts"),
    [
        (Choice("posterize", 1.0, 9), {8}),
        (Choice("posterize", 1.0, 0), {4}),
        (Choice("solarize", 1.0, 0), {0}),
        (Choice("color", 1.0, 0), {0.1}),
        (Choice("contrast", 1.0, 9), {1.9}),
        (Choice("rotate", 1.0, 9), {-30, 30}),
        (Choice("shear_x", 1.0, 3), {-0.1, 0.1}),
        (Choice("rotate", 0.0, 9), set()),
    ],
)
def test_autoaugment_takes_the_amounts_of_its_paper(image, rng, monkeypatch, choice, amounts):
    found = set()

    def note(picture, amount):
        found.add(round(amount, 9))
        return picture

    monkeypatch.setitem(policies.OPERATIONS, choice.name, note)
    for _ in range(20):
        AutoAugment(sub_policies=((choice,),))(rng, image)
    assert found == amounts


def test_probabilities_are_kept(image, rng):
    policy = AutoAugment(sub_policies=((Choice("invert", 0.25, 0),), (Choice("invert", 0.75, 0),)))
    inverted = [bool(np.any(policy(rng, image) != image)) for _ in range(400)]
    assert abs(np.mean(inverted) - 0.5) < 0.1
    policy = AutoAugment(sub_policies=((Choice("invert", 0.25, 0),),))
    inverted = [bool(np.any(policy(rng, image) != image)) for _ in range(400)]
    assert abs(np.mean(inverted) - 0.25) < 0.08


@pytest.mark.parametrize("policy", [RandAugment(), RandAugment(3, 28), AutoAugment()])
def test_the_generator_decides_alone(image, policy):
    def results(seed):
        rng = np.random.default_rng(seed)
        return np.stack([policy(rng, image) for _ in range(40)])

    np.testing.assert_array_equal(results(0), results(0))
    assert np.any(results(0) != results(1))
    assert results(0).shape == (40, *image.shape) and results(0).dtype == np.uint8
