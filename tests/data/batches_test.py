"""Augmentation and batches as a training loop on the device sees them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from evonorms_jax import data

KEY = jax.random.key(0)


def numbered(batch, height=11, width=9, channels=2):
    """Images `[B, H, W, C]`: the first channels number the place, the others the image."""
    place = np.arange(height * width, dtype=np.uint8).reshape(1, height, width, 1)
    image = np.arange(batch, dtype=np.uint8).reshape(batch, 1, 1, 1)
    return np.concatenate(
        [np.broadcast_to(part, (batch, height, width, channels // 2)) for part in (place, image)], 3
    )


@pytest.mark.parametrize("flip", [False, True])
def test_every_crop_is_a_window_of_its_own_image(flip):
    images = numbered(256)
    crops = np.asarray(data.random_crop_flip(KEY, jnp.asarray(images), 8, flip))
    assert crops.shape == (256, 8, 8, 2) and crops.dtype == np.uint8
    seen = set()
    for crop, image in zip(crops, images, strict=True):
        mirrored = crop[0, 0, 0] > crop[0, -1, 0]
        window = crop[:, ::-1] if mirrored else crop
        row, column = divmod(int(window[0, 0, 0]), 9)
        np.testing.assert_array_equal(window, image[row : row + 8, column : column + 8])
        seen.add((row, column, bool(mirrored)))
    # All 4 x 2 places, and both senses where mirroring is allowed.
    assert len(seen) == (16 if flip else 8)
    assert {mirrored for *_, mirrored in seen} == ({False, True} if flip else {False})


def test_places_and_flips_are_uniform_and_independent():
    crops = data.random_crop_flip(KEY, jnp.asarray(numbered(250, 4, 4)).repeat(64, axis=0), 3, True)
    crops = np.asarray(crops[..., 0])
    mirrored = crops[:, 0, 0] > crops[:, 0, -1]
    corner = np.where(mirrored, crops[:, 0, -1], crops[:, 0, 0])
    counts = np.unique(np.stack([corner, mirrored]), axis=1, return_counts=True)[1]
    assert len(counts) == 8 and np.abs(counts - 2000).max() < 5 * np.sqrt(2000)


def test_the_key_decides_alone():
    images = jnp.asarray(numbered(32))
    first, again = (data.random_crop_flip(KEY, images, 6, True) for _ in range(2))
    other = data.random_crop_flip(jax.random.key(1), images, 6, True)
    np.testing.assert_array_equal(first, again)
    assert np.any(np.asarray(first) != np.asarray(other))


def test_whole_images_need_no_place():
    images = numbered(4, 9, 9)
    np.testing.assert_array_equal(data.random_crop_flip(KEY, images, 9, False), images)


@pytest.mark.parametrize("size", [0, 10])
def test_a_crop_that_does_not_fit_is_named(size):
    with pytest.raises(ValueError, match=f"crop size must be from 1 to 9, got {size}"):
        data.random_crop_flip(KEY, numbered(2), size, False)


def test_normalised_training_images_have_mean_0_and_deviation_1():
    made = data.load("synthetic", train_size=64)
    out = data.normalize(made.train.images, made.mean, made.std)
    assert out.dtype == jnp.float32 and out.shape == made.train.images.shape
    pixels = np.asarray(out, np.float64)
    np.testing.assert_allclose([pixels.mean(), pixels.std()], [0, 1], atol=1e-5)


def test_normalising_is_per_channel():
    images = np.full((1, 2, 2, 2), 10, np.uint8)
    out = data.normalize(images, np.float32([4, 10]), np.float32([3, 5]))
    np.testing.assert_array_equal(out, np.broadcast_to(np.float32([2, 0]), (1, 2, 2, 2)))


def epochs(key, number, num_examples, batch_size):
    """Indices of the first epochs, `[number, steps * B]`."""
    steps = jnp.arange(number * (num_examples // batch_size))
    batches = jax.vmap(lambda step: data.batch_indices(key, step, num_examples, batch_size))(steps)
    return np.asarray(batches).reshape(number, -1)


@pytest.mark.parametrize(("num_examples", "batch_size"), [(1, 1), (10, 3), (97, 97), (4000, 64)])
def test_no_index_comes_twice_in_an_epoch(num_examples, batch_size):
    for epoch in epochs(KEY, 3, num_examples, batch_size):
        assert epoch.dtype == np.int32
        assert len(epoch) == num_examples // batch_size * batch_size  # incomplete batch dropped
        assert len(set(epoch)) == len(epoch)
        assert epoch.min() >= 0 and epoch.max() < num_examples


def test_epochs_and_keys_differ_and_the_same_key_repeats():
    first, second = epochs(KEY, 2, 120, 8)
    np.testing.assert_array_equal(np.sort(first), np.sort(second))
    other = epochs(jax.random.key(1), 1, 120, 8)[0]
    for one, two in ((first, second), (first, other), (second, other)):
        assert np.mean(one == two) < 0.1
    np.testing.assert_array_equal(epochs(KEY, 1, 120, 8)[0], first)


def test_all_permutations_are_equally_frequent():
    orders = epochs(KEY, 24 * 400, 4, 2)
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    # Chi-square with 23 degrees of freedom: above 60 once in 40,000.
    assert np.square(counts - 400).sum() / 400 < 60


def test_an_epoch_leaves_no_trace_of_the_order():
    orders = epochs(KEY, 50, 5000, 100)
    assert abs(np.corrcoef(orders.ravel(), np.tile(np.arange(5000), 50))[0, 1]) < 0.01
    assert abs(np.corrcoef(orders[:, 1:].ravel(), orders[:, :-1].ravel())[0, 1]) < 0.01


def test_a_traced_step_in_a_loop_gives_the_same_batches():
    def body(step, out):
        return out.at[step].set(data.batch_indices(KEY, step, 10, 3))

    looped = jax.jit(lambda: jax.lax.fori_loop(0, 7, body, jnp.zeros((7, 3), jnp.int32)))()
    expected = [data.batch_indices(KEY, step, 10, 3) for step in range(7)]
    np.testing.assert_array_equal(looped, expected)


def test_a_batch_costs_nothing_that_grows_with_the_set():
    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (variable.aval.size for variable in equation.outvars)
            for inner in jaxprs_in_params(equation.params):
                yield from sizes(inner)

    jaxpr = jax.make_jaxpr(lambda step: data.batch_indices(KEY, step, 45_000, 128))(0)
    assert max(sizes(jaxpr.jaxpr)) <= 256


@pytest.mark.parametrize("batch_size", [0, 11])
def test_a_batch_larger_than_the_set_is_named(batch_size):
    with pytest.raises(ValueError, match=f"number of examples, 10, got {batch_size}"):
        data.batch_indices(KEY, 0, 10, batch_size)


@pytest.mark.parametrize(("count", "batch_size", "number"), [(10, 4, 3), (8, 4, 2), (3, 8, 1)])
def test_evaluation_counts_every_image_once(count, batch_size, number):
    held = data.ImageSet(numbered(count), np.arange(count, dtype=np.int32) + 1)
    batches = data.eval_batches(held, batch_size)
    assert batches.images.shape == (number, batch_size, 11, 9, 2)
    assert batches.images.dtype == np.uint8 and batches.weights.dtype == np.float32
    real = batches.weights == 1
    assert batches.weights.sum() == real.sum() == count
    np.testing.assert_array_equal(batches.labels[real], held.labels)
    np.testing.assert_array_equal(batches.images[real], held.images)
    # The filling is made of real images: a layer may give NaN on blank ones.
    np.testing.assert_array_equal(batches.images[..., 0, 0, 1] + 1, batches.labels)


def test_nothing_to_evaluate_is_named():
    with pytest.raises(ValueError, match="cannot cut 0 images into batches of 4"):
        data.eval_batches(data.ImageSet(numbered(0), np.zeros(0, np.int32)), 4)
