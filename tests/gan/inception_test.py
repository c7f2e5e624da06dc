"""The Inception network: its counts, and each of its blocks against sums in NumPy float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evonorms_jax.gan import inception_weights
from evonorms_jax.gan.inception import Inception, average_pool

SIDE = 107  # leaves a map of 2x2 at the end


def random_tensors(seed=0):
    """Seeded weights of the right shapes, which keep the scale of the activations."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in inception_weights.shapes().items():
        values = rng.standard_normal(shape, np.float32)
        if name.endswith("kernel"):
            values *= math.sqrt(2 / math.prod(shape[:-1]))
        elif name.endswith(("scale", "var")):
            values = 1 + 0.2 * np.abs(values)
        else:
            values *= 0.1
        found[name] = values
    return found


# -- The oracle


def windows(x, height, width, stride=1, same=True, fill=0.0):
    """`[B, H', W', height, width, C]`."""
    if same:
        pads = [(0, 0), (height // 2, height // 2), (width // 2, width // 2), (0, 0)]
        x = np.pad(x, pads, constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(1, 2))
    return np.moveaxis(view[:, ::stride, ::stride], 3, -1)


class Oracle:
    """The blocks as they are described, from a dict of tensors."""

    def __init__(self, tensors):
        self.tensors = tensors

    def unit(self, x, name, stride=1, same=True):
        kernel, scale, bias, mean, var = (
            self.tensors[f"{name}/{leaf}"].astype(np.float64)
            for leaf in ("conv/kernel", "bn/scale", "bn/bias", "bn/mean", "bn/var")
        )
        y = np.tensordot(windows(x, *kernel.shape[:2], stride, same), kernel, 3)
        return np.maximum((y - mean) / np.sqrt(var + 1e-3) * scale + bias, 0)

    def chain(self, x, block, *names, last_halves=False):
        for place, name in enumerate(names):
            halve = last_halves and place == len(names) - 1
            x = self.unit(x, f"{block}/{name}", *((2, False) if halve else ()))
        return x

    def pooled(self, x, block, largest=False):
        fill = -np.inf if largest else np.nan
        seen = windows(x, 3, 3, fill=fill)
        return self.unit((np.max if largest else np.nanmean)(seen, axis=(3, 4)), f"{block}/branch_pool")

    def five(self, x, b):
        return [
            self.chain(x, b, "branch1x1"),
            self.chain(x, b, "branch5x5_1", "branch5x5_2"),
            self.chain(x, b, *(f"branch3x3dbl_{i}" for i in (1, 2, 3))),
            self.pooled(x, b),
        ]

    def six_first(self, x, b):
        double = [f"branch3x3dbl_{i}" for i in (1, 2, 3)]
        return [
            self.chain(x, b, "branch3x3", last_halves=True),
            self.chain(x, b, *double, last_halves=True),
            halved(x),
        ]

    def six(self, x, b):
        return [
            self.chain(x, b, "branch1x1"),
            self.chain(x, b, *(f"branch7x7_{i}" for i in (1, 2, 3))),
            self.chain(x, b, *(f"branch7x7dbl_{i}" for i in range(1, 6))),
            self.pooled(x, b),
        ]

    def seven_first(self, x, b):
        return [
            self.chain(x, b, "branch3x3_1", "branch3x3_2", last_halves=True),
            self.chain(x, b, *(f"branch7x7x3_{i}" for i in range(1, 5)), last_halves=True),
            halved(x),
        ]

    def seven(self, x, b):
        single = self.chain(x, b, "branch3x3_1")
        double = self.chain(x, b, "branch3x3dbl_1", "branch3x3dbl_2")
        parts = [(single, "3x3_2a"), (single, "3x3_2b"), (double, "3x3dbl_3a"), (double, "3x3dbl_3b")]
        return [
            self.chain(x, b, "branch1x1"),
            *(self.chain(y, b, f"branch{name}") for y, name in parts),
            self.pooled(x, b, largest=b == "Mixed_7c"),
        ]

    def block(self, x, name):
        number, letter = name[-2:]
        kinds = {"5": self.five, "6": self.six, "7": self.seven}
        first = {"6a": self.six_first, "7a": self.seven_first}
        return np.concatenate(first.get(number + letter, kinds[number])(x, name), -1)


def halved(x):
    return np.max(windows(x, 3, 3, 2, same=False), axis=(3, 4))


@pytest.fixture(scope="module")
def run():
    """All feature maps of one image of odd size, by block, and the weights."""
    tensors = random_tensors()
    variables = inception_weights.weights_of(tensors).variables
    x = np.random.default_rng(1).uniform(-1, 1, (1, SIDE, SIDE, 3)).astype(np.float32)
    apply = jax.jit(lambda variables, x: Inception().apply(variables, x, capture_intermediates=True))
    (features, logits), seen = apply(variables, x)
    maps = {
        name: np.asarray(value["__call__"][0], np.float64)
        for name, value in seen["intermediates"].items()
        if isinstance(value, dict)
    }
    return tensors, x, maps, np.asarray(features), np.asarray(logits)


BLOCKS = [f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")]


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_the_stem(run):
    tensors, x, maps, *_ = run
    oracle = Oracle(tensors)
    y = oracle.unit(x.astype(np.float64), "Conv2d_1a_3x3", 2, False)
    y = oracle.unit(oracle.unit(y, "Conv2d_2a_3x3", 1, False), "Conv2d_2b_3x3")
    y = oracle.unit(oracle.unit(halved(y), "Conv2d_3b_1x1"), "Conv2d_4a_3x3", 1, False)
    close(maps["Conv2d_4a_3x3"], y)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block(run, name):
    tensors, _, maps, *_ = run
    before = halved(maps["Conv2d_4a_3x3"]) if name == "Mixed_5b" else maps[BLOCKS[BLOCKS.index(name) - 1]]
    close(maps[name], Oracle(tensors).block(before, name))


def test_the_head_has_no_bias(run):
    tensors, _, maps, features, logits = run
    assert maps["Mixed_7c"].shape == (1, 2, 2, 2048)
    close(features, maps["Mixed_7c"].mean((1, 2)))
    close(logits, features.astype(np.float64) @ tensors["fc/kernel"])


def test_counts():
    sizes = {name: math.prod(shape) for name, shape in inception_weights.shapes().items()}

    def total(*endings):
        return sum(size for name, size in sizes.items() if name.endswith(endings))

    assert sum(name.endswith("conv/kernel") for name in sizes) == 94 and len(sizes) == 472
    assert total("conv/kernel") == 21_751_136
    assert total("bn/scale", "bn/bias") == total("bn/mean", "bn/var") == 34_432
    assert total("fc/kernel", "fc/bias") == 2_065_392


def test_maps_of_a_full_image():
    def apply(x):
        variables = Inception().init(jax.random.key(0), x)
        return Inception().apply(variables, x, capture_intermediates=True)

    _, seen = jax.eval_shape(apply, jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32))
    sides = {
        name: value["__call__"][0].shape[1]
        for name, value in seen["intermediates"].items()
        if "_" in name and name != "__call__"
    }
    expected = {"Conv2d_1a_3x3": 149, "Conv2d_2a_3x3": 147, "Conv2d_2b_3x3": 147, "Conv2d_3b_1x1": 73}
    expected |= {"Conv2d_4a_3x3": 71} | {name: {"5": 35, "6": 17, "7": 8}[name[-2]] for name in BLOCKS}
    assert sides == expected


def test_a_constant_map_stays_constant_under_the_average_pool():
    np.testing.assert_allclose(average_pool(jnp.full((1, 4, 5, 2), 3.0)), 3, rtol=1e-6)
