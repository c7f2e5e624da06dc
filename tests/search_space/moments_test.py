"""Moments over index sets against NumPy float64: values, precision, masks, groups, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evonorms_jax.search_space.moments import (
    BATCH,
    INDEX_SETS,
    INSTANCE,
    POSITION,
    Moments,
    masked_input,
    resolve_groups,
)
from evonorms_jax.search_space.target import building_for

KINDS = ("mean", "mean_square", "variance")


def by_hand(x, index_set, kind, groups=1, mask=None):
    """A moment in float64 from lists of numbers: `[B, 1.., C]`, one loop over examples, one over channels.

    The moments of one position are `[B, *S, C]`. A mask does not concern them.
    """
    x = np.asarray(x, np.float64)
    if index_set == POSITION:
        centre = x.mean(-1, keepdims=True) if kind == "variance" else 0
        values = x if kind == "mean" else (x - centre) ** 2
        return np.broadcast_to(values.mean(-1, keepdims=True), x.shape)
    mask = np.ones(x.shape[:-1], bool) if mask is None else np.broadcast_to(mask, x.shape[:-1])
    batch, channels = x.shape[0], x.shape[-1]
    width = {"bwh": 1, "whc": channels, "wh": 1, "whc/g": channels // groups}[index_set]
    result = np.zeros((batch, *(1 for _ in x.shape[1:-1]), channels))
    for b in range(batch):
        examples = range(batch) if index_set == BATCH else [b]
        for c in range(channels):
            chosen = slice(c // width * width, c // width * width + width)
            numbers = np.concatenate([x[e][mask[e]][:, chosen].ravel() for e in examples])
            centre = numbers.mean() if kind == "variance" else 0
            result[b, ..., c] = numbers.mean() if kind == "mean" else ((numbers - centre) ** 2).mean()
    return result


@functools.partial(jax.jit, static_argnames="groups")
def every_moment(x, groups=1, mask=None):
    """All moments of `Moments` by index set and kind, as they come: `[B or 1, 1.. or *S, C or 1]`."""
    moments = Moments(x, mask=None if mask is None else mask[..., None], groups=groups)
    return {(i, kind): getattr(moments, kind)(i) for i in INDEX_SETS for kind in KINDS}


def assert_moments(x, groups=1, mask=None, kinds=KINDS, shape=None, **tolerance):
    """`Moments(x)` against the loops; `shape` if x has the size 1 where it is constant."""
    whole = np.broadcast_to(x, shape or x.shape)
    for (index_set, kind), value in every_moment(x, groups, mask).items():
        if kind in kinds:
            assert value.ndim == x.ndim
            assert index_set == POSITION or value.shape[1:-1] == (1,) * (x.ndim - 2)
            expected = by_hand(whole, index_set, kind, groups, mask)
            actual = np.broadcast_to(value, expected.shape)
            np.testing.assert_allclose(actual, expected, err_msg=f"{index_set} {kind}", **tolerance)


@pytest.mark.parametrize("shape", [(3, 7, 6), (1, 5, 4, 6), (3, 2, 3, 4, 6), (3, 1, 1, 6)], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_every_moment(shape, masked, rng):
    x = rng.normal(rng.normal(size=shape[-1]), 2, shape).astype(np.float32)
    mask = rng.random(shape[:-1]) < 0.6 if masked else None
    if masked:
        mask.reshape(shape[0], -1)[:, 0] = True  # an example without a real position has no mean
        x = np.where(mask[..., None], x, np.float32(0))
    assert_moments(x, 3, mask, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (17, 17), (48, 24), (6, 1), (6, 6)])
def test_groups(channels, groups, rng):
    x = rng.normal(0.5, 2, (2, 3, 4, channels)).astype(np.float32)
    assert_moments(x, groups, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("axes", [(1, 2), (1, 2, 3), (0, 1, 2), (0, 1, 2, 3)], ids=str)
def test_a_tensor_stored_with_size_1_has_the_moments_of_the_whole_tensor(axes, masked, rng):
    """Aggregations and per-channel vectors keep the size 1 where they are constant."""
    shape = (3, 4, 5, 6)
    small = rng.normal(0.5, 2, [1 if i in axes else n for i, n in enumerate(shape)]).astype(np.float32)
    mask = rng.random(shape[:-1]) < [[[0.2]], [[0.9]], [[0.5]]] if masked else None
    assert_moments(small, 3, mask, shape=shape, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(4, 2, 2, 12), (2, 6, 6, 12), (8, 16, 16, 12), (64, 1, 1, 12)], ids=str)
def test_variance_at_mean_1e4_and_deviation_1(shape, masked, rng):
    """E[x^2] - E[x]^2 in float32 would give anything between -16 and 16 here."""
    x = (1e4 + rng.normal(size=shape)).astype(np.float32)
    mask = rng.random(shape[:-1]) < 0.7 if masked and shape[1] > 1 else None
    assert_moments(x, 3, mask, kinds=("variance",), rtol=2e-5, atol=1e-6)


def test_variance_is_never_negative(rng):
    """All but the first position alike, and so many that rounding is larger than what is to come out."""
    x = np.ones((1, 2**22, 6), np.float32) * rng.uniform(1, 10, 6).astype(np.float32)
    x[:, 0] = 0
    assert jax.jit(lambda x: Moments(x).variance(INSTANCE))(x).min() >= 0


@pytest.mark.parametrize("masked", [False, True])
def test_a_constant_has_no_variance(masked, rng):
    x = np.broadcast_to(rng.uniform(1, 1e4, 64).astype(np.float32), (4, 10, 10, 64))
    mask = rng.random((4, 10, 10)) < 0.7 if masked else None
    moments = every_moment(x, 64, mask)
    np.testing.assert_array_equal(moments[INSTANCE, "variance"], 0)
    np.testing.assert_allclose(moments[BATCH, "variance"], 0, atol=1e-6)


def test_a_far_away_first_position_does_little_harm(rng):
    """The first position is the shift of the one-pass variance: far away, it is most of it."""
    x = rng.normal(0, 1, (2, 16, 16, 3)).astype(np.float32)
    x[:, 0, 0] = 1e4
    assert_moments(x, kinds=("variance",), rtol=1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_equal_finite_differences(masked, rng):
    mask = rng.random((3, 4, 2)) < 0.7 if masked else None
    x, direction, weights = rng.normal(3, 2, (3, 3, 4, 2, 6))
    direction = direction if mask is None else direction * mask[..., None]
    weights = weights[:, :1, :1]

    def losses(x):
        return {key: jnp.sum(weights * value) for key, value in every_moment(x, 3, mask).items()}

    with jax.enable_x64(True):
        slopes = jax.jvp(losses, (jnp.asarray(x),), (jnp.asarray(direction),))[1]
        gradients = jax.device_get(jax.jacrev(losses)(jnp.asarray(x)))
    for (index_set, kind), slope in slopes.items():
        ends = [by_hand(x + h * direction, index_set, kind, 3, mask) for h in (1e-4, -1e-4)]
        expected = np.sum(weights * (ends[0] - ends[1])) / 2e-4
        np.testing.assert_allclose(slope, expected, rtol=1e-6)
        np.testing.assert_allclose(np.sum(gradients[index_set, kind] * direction), expected, rtol=1e-6)


def test_one_huge_channel_does_no_harm_to_the_moments_of_its_position(rng):
    """Token models have such channels, and a pass around a pivot would lose the others beside it."""
    x = rng.normal(0, 1, (2, 5, 96)).astype(np.float32)
    for channel in (0, 50):
        outlier = x.copy()
        outlier[..., channel] = 3e3
        moments, deviation = every_moment(outlier), outlier.std(-1).min()
        for kind in KINDS:
            expected = by_hand(outlier, POSITION, kind)[..., :1]
            off = {"atol": 2e-6 * deviation} if kind == "mean" else {"rtol": 2e-6}
            np.testing.assert_allclose(moments[POSITION, kind], expected, **off)


def test_the_second_derivative_of_the_variance_of_a_position(rng):
    """2 / C (I - 1 / C), although the center of the sum carries no gradient."""
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(3, 2, 6))
        hessian = jax.hessian(lambda x: Moments(x.reshape(1, 1, 6)).variance(POSITION).sum())(x)
    np.testing.assert_allclose(hessian, (np.eye(6) - 1 / 6) / 3, atol=1e-12)


def test_a_moment_is_computed_once(rng):
    moments = Moments(jnp.asarray(rng.normal(size=(2, 3, 4, 6)), jnp.float32), groups=2)
    for index_set in INDEX_SETS:
        for kind in KINDS:
            assert getattr(moments, kind)(index_set) is getattr(moments, kind)(index_set)


@pytest.mark.parametrize("masked", [False, True])
def test_a_pivot_of_0_serves_bfloat16_as_well_as_one_near_the_data(masked, rng):
    """The form for a TPU against the form for other platforms; means up to 100 deviations, and a constant."""
    ratios = np.asarray([0, 1, 3, 10, 30, 100], np.float32)
    x = jnp.asarray(rng.normal(ratios, 1, (4, 14, 14, 6)), jnp.bfloat16).astype(jnp.float32)
    x = x.at[0].set(x[0, 0, 0])
    mask = jnp.asarray(rng.random((4, 14, 14, 1)) < 0.7) if masked else None

    @functools.partial(jax.jit, static_argnames="coarse")
    def results(x, coarse):
        def loss(x):
            moments = Moments(x, mask=mask, groups=2, coarse=coarse)
            values = {i: (moments.mean(i), moments.variance(i)) for i in INDEX_SETS}
            return sum(jnp.sum(jnp.sqrt(variance + 1)) for _, variance in values.values()), values

        return jax.grad(loss, has_aux=True)(x)

    gradient, near = results(x, False)
    with building_for("tpu"):
        gradient_at_0, at_0 = results(x, True)
        assert Moments(x, mask=mask, coarse=True)._pivot((1, 2), mask) is None
    noise = np.square(np.asarray(x, np.float64)).mean((0, 1, 2)).max() * 2.0**-19
    for index_set in INDEX_SETS:
        for actual, expected in zip(at_0[index_set], near[index_set], strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=noise)
        assert (at_0[index_set][1] >= 0).all()
    np.testing.assert_allclose(gradient_at_0, gradient, atol=noise * np.abs(gradient).max())


def test_resolve_groups():
    assert resolve_groups(64) == 32
    assert resolve_groups(48) == 24
    assert resolve_groups(17) == 17
    assert resolve_groups(37) == 1
    assert resolve_groups(1) == 1
    assert resolve_groups(64, groups=5) == 4
    assert resolve_groups(64, group_size=8) == 8
    assert resolve_groups(64, groups=1, group_size=16) == 4
    assert resolve_groups(4, group_size=8) == 1
    assert resolve_groups(17, group_size=8) == 1


@pytest.mark.parametrize("value", [0, -3])
def test_bad_groups(value):
    with pytest.raises(ValueError, match=f"^groups must be at least 1, got {value}$"):
        resolve_groups(64, value)
    with pytest.raises(ValueError, match=f"^group_size must be at least 1, got {value}$"):
        resolve_groups(64, group_size=value)


def test_masked_input():
    x = jnp.full((2, 3, 4, 5), jnp.nan)
    mask = np.zeros((3, 1), bool)
    kept, whole = masked_input(x, mask)
    assert whole.shape == (2, 3, 4, 1)
    np.testing.assert_array_equal(kept, np.zeros(x.shape))
    assert masked_input(x, None) == (x, None)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((2, 3, 5), bool), r"the mask must broadcast to \(2, 3, 4\), got shape \(2, 3, 5\)"),
        (np.ones((2,), bool), r"the mask must broadcast to \(2, 3, 4\), got shape \(2,\)"),
        (np.ones((2, 3, 4, 1), bool), r"the mask must broadcast to \(2, 3, 4\), got shape \(2, 3, 4, 1\)"),
        (np.ones((2, 3, 4), np.float32), r"the mask must be boolean \(True is real\), got dtype float32"),
        (np.ones((2, 3, 4), np.int32), r"the mask must be boolean \(True is real\), got dtype int32"),
    ],
)
def test_bad_masks(mask, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        masked_input(jnp.ones((2, 3, 4, 5)), mask)
