"""Truncations, standing statistics, and samplers that depend on label, seed and place alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.gan_configs import SIDE, tiny_config

from evonorms_jax.gan import sampling
from evonorms_jax.gan.construction import build_networks, networks_of
from evonorms_jax.gan.sampling import SamplingSettings, draw_latents, generate, make_renderer, make_sampler
from evonorms_jax.gan.task import make_mesh, make_programs
from evonorms_jax.training.mesh import replicated


def untrained(config, devices=1, noise=0.3):
    """A state with weights away from their orthogonal start, as after a training."""
    mesh = make_mesh(config, jax.devices()[:devices])
    programs = make_programs(config, 4, 1, mesh)
    state = programs.init(jax.random.key(0))
    generator = np.random.default_rng(1)
    average = jax.tree.map(
        lambda leaf: (leaf + noise * generator.normal(size=leaf.shape)).astype(np.float32),
        jax.device_get(state.average),
    )
    return state._replace(average=jax.device_put(average, replicated(mesh)))


def test_no_latent_is_beyond_the_threshold():
    drawn = draw_latents(0, 4000, 8, SamplingSettings(truncation=0.5))
    assert np.abs(drawn).max() <= 0.5
    # The deviation of a normal truncated at t is sqrt(1 - 2 t phi(t) / (2 Phi(t) - 1)).
    assert drawn.std() == pytest.approx(0.2838, rel=0.02)


def test_scaled_is_another_truncation_and_named_so():
    settings = SamplingSettings(truncation=1.0, method="scaled")
    drawn = draw_latents(0, 4000, 8, settings)
    assert drawn.std() == pytest.approx(0.8796, rel=0.02) and 1.5 < np.abs(drawn).max() <= 2
    half = draw_latents(0, 4000, 8, SamplingSettings(truncation=0.5, method="scaled"))
    np.testing.assert_allclose(half, drawn / 2, rtol=1e-5)
    assert settings.describe() == "scaled 1"
    assert SamplingSettings(truncation=0.5).describe() == "threshold 0.5"
    assert SamplingSettings().describe() == "untruncated"
    plain = draw_latents(0, 4000, 8, SamplingSettings())
    assert plain.std() == pytest.approx(1, rel=0.02) and np.abs(plain).max() > 3


def test_a_latent_depends_on_seed_and_place_alone():
    few, many, other = (
        draw_latents(seed, count, 3, SamplingSettings()) for seed, count in ((1, 3), (1, 9), (2, 3))
    )
    np.testing.assert_array_equal(few, many[:3])
    assert (few != other).all() and len(np.unique(many)) == many.size


@pytest.mark.parametrize(("fields", "message"), [
    ({"method": "divided"}, "sampling.method must be one of threshold, scaled, got 'divided'"),
    ({"truncation": 0.0}, r"sampling.truncation must be above 0, or none, got 0\.0"),
])  # fmt: skip
def test_a_truncation_that_is_none(fields, message):
    with pytest.raises(ValueError, match=message):
        draw_latents(0, 1, 1, SamplingSettings(**fields))


@pytest.fixture(scope="module")
def b0():
    config = tiny_config(**{"layer.spec": "evonorm_b0"})
    return config, untrained(config)


def test_images_depend_on_label_seed_and_place_alone(b0):
    config, state = b0
    sample = make_sampler(config, state)
    labels = np.arange(11) % 4
    images = sample(labels, 3)
    assert images.shape == (11, SIDE, SIDE, 1) and images.dtype == np.uint8
    np.testing.assert_array_equal(sample(labels[:3], 3), images[:3])
    np.testing.assert_array_equal(make_sampler(config, state)(labels, 3), images)
    changed = sample((labels + 1) % 4, 3)
    assert all((a != b).any() for a, b in zip(images, changed, strict=True))
    assert (sample(labels, 4) != images).mean() > 0.5
    assert sample(labels[:0], 3).shape == (0, SIDE, SIDE, 1)


@pytest.mark.exhaustive
def test_programs_of_another_size_round_differently_at_most(b0):
    config, state = b0
    labels = np.arange(11) % 4
    images = make_sampler(config, state)(labels, 3)
    config.sampling.batch_size = 5
    other = make_sampler(config, state)(labels, 3)
    config.sampling.batch_size = 8
    assert np.abs(other.astype(int) - images).max() <= 1


@pytest.mark.exhaustive
def test_eight_devices_draw_the_images_of_one(b0):
    config, state = b0
    eight = untrained(config, devices=8)
    labels = np.arange(11) % 4
    one, other = (make_sampler(config, s)(labels, 3).astype(int) for s in (state, eight))
    assert np.abs(one - other).max() <= 1


@pytest.mark.parametrize("spec", ["bn_relu", "evonorm_b0"])
def test_sampling_before_statistics_are_accumulated_is_refused(spec):
    config = tiny_config(**{"layer.spec": spec})
    generator = build_networks(config, 4, 1).generator
    z, labels = jnp.zeros((2, 4)), jnp.zeros(2, jnp.int32)
    shapes = jax.eval_shape(lambda key: generator.init(key, z, labels, train=False), jax.random.key(0))
    variables = {name: shapes[name] for name in ("params", "spectral")}
    with pytest.raises(ValueError, match="accumulate standing statistics before sampling"):
        generate(generator, variables, z, labels)


def test_a_layer_of_single_images_needs_no_statistics():
    config = tiny_config(**{"layer.spec": "evonorm_s0"})
    state = untrained(config)
    generator = networks_of(config, state.params).generator

    def never(number):
        raise AssertionError("no batch is needed")

    arguments = generator, state.average, state.spectral["generator"], never
    assert set(sampling.standing_variables(*arguments, 3)) == {"params", "spectral"}


def test_standing_statistics_are_those_of_the_averaged_weights(b0):
    """Neither the live parameters nor their vectors matter, and the mean image is that of training mode."""
    config, state = b0
    labels = np.arange(64) % 4
    images = make_sampler(config, state)(labels, 0)
    live = jax.tree.map(lambda leaf: leaf + 1, state.params["generator"])
    vectors = jax.tree.map(lambda leaf: leaf[::-1], state.spectral["generator"])
    moved = state._replace(
        params=state.params | {"generator": live}, spectral=state.spectral | {"generator": vectors}
    )
    other = make_sampler(config, moved)(labels, 0)
    assert np.abs(other.astype(int) - images).mean() < 1
    generator = networks_of(config, state.params).generator
    variables = {"params": state.average, "spectral": spectral_of(state)}
    z = draw_latents(0, 64, generator.latent, SamplingSettings())
    training, _ = generator.apply(variables, z, labels.astype(np.int32), train=True, mutable=["batch_stats"])
    assert np.abs((np.asarray(training) + 1) * 127.5 - images).mean() < 8


def spectral_of(state):
    return sampling.spectral.refresh(state.average, state.spectral["generator"], 30)


def test_standing_statistics_are_means_of_batch_moments(b0):
    config, state = b0
    generator = networks_of(config, state.params).generator
    batches = [
        (np.full((4, 4), number, np.float32), np.array([0, 1, 2, 3], np.int32)) for number in (0.0, 1.0, 3.0)
    ]
    arguments = generator, state.average, state.spectral["generator"]
    each = [sampling.standing_variables(*arguments, lambda _, b=b: b, 1)["batch_stats"] for b in batches]
    found = sampling.standing_variables(*arguments, lambda number: batches[number], 3)["batch_stats"]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / 3, *each)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, mean)


def test_each_truncation_accumulates_statistics_of_its_own(b0, monkeypatch):
    config, state = b0
    seen = []
    original = sampling.standing_variables

    def watched(*arguments):
        variables = original(*arguments)
        seen.append(jax.device_get(variables["batch_stats"]))
        return variables

    monkeypatch.setattr(sampling, "standing_variables", watched)
    for truncation in (1.0, 0.2):
        config.sampling.truncation = truncation
        make_sampler(config, state)
    config.sampling.truncation = None
    first, second = map(jax.tree.leaves, seen)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(first, second, strict=True))


def test_a_renderer_mixes_classes(b0):
    config, state = b0
    render = make_renderer(config, state)
    z = draw_latents(0, 4, 4, SamplingSettings())
    labels = np.array([0, 1, 2, 3])
    weights = np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(render(z, weights).astype(int), render(z, labels), atol=1)
    between = render(z, (weights + weights[::-1]) / 2)
    assert (between != render(z, labels)).any()


@pytest.mark.parametrize(("shape", "labels", "message"), [
    ((2, 4), np.array([0, 4]), "the generator has the classes 0 to 3, got label 4"),
    ((2, 4), np.array([-1, 0]), "got label -1"),
    ((2, 4), np.ones((2, 3), np.float32), r"classes 0 to 3, got weights \(2, 3\)"),
    ((2, 5), np.array([0, 1]), r"latents of size 4 got latents \(2, 5\) and labels \(2,\)"),
    ((3, 4), np.array([0, 1]), r"latents \(3, 4\) and labels \(2,\)"),
])  # fmt: skip
def test_latents_and_labels_that_do_not_fit_are_refused(shape, labels, message, b0):
    render = make_renderer(*b0)
    with pytest.raises(ValueError, match=message):
        render(np.zeros(shape, np.float32), labels)
