"""Streams of synthetic images, and the settings that a training refuses to stream."""

import itertools

import jax
import numpy as np
import pytest

from evonorms_jax import data
from evonorms_jax.training.classification import build_task, make_feed
from evonorms_jax.training.mesh import data_mesh
from experiments.configs import imagenet_efficientnet, imagenet_resnet50, train


def joined(batches):
    return [np.concatenate(values) for values in zip(*batches, strict=True)]


def test_made_up_images_are_streamed_as_many_as_imagenet_has():
    stream = data.open_stream(
        data.DataSettings("synthetic:1000x3", crop=8, image_size=12, augment="autoaugment")
    )
    assert stream.num_classes == 1000
    assert stream.sizes == {"train": 1_281_167 - 128, "validation": 128, "test": 128}
    batch = data.Batch(*joined(itertools.islice(stream.train_batches(200), 2)))
    assert batch.images.shape == (400, 8, 8, 3) and batch.images.dtype == np.uint8
    assert len(np.unique(batch.images.reshape(400, -1), axis=0)) == 256, "a few that come again"
    np.testing.assert_array_equal(batch.images[:144], batch.images[256:])
    np.testing.assert_array_equal(batch.images[200:], next(stream.train_batches(200, start=1)).images)
    images, labels, weights = joined(stream.eval_batches("test", 100))
    assert images.shape == (200, 12, 12, 3) and weights.sum() == weights[:128].sum() == 128
    np.testing.assert_array_equal(labels[:72], labels[128:])


def test_hosts_share_made_up_images():
    def open_share(host, hosts):
        settings = data.DataSettings("synthetic:7x3", crop=4, train_size=5)
        return data.open_stream(settings, share=data.Share(host, hosts))

    whole = next(open_share(0, 1).train_batches(6, 3))
    shares = [next(open_share(host, 2).train_batches(6, 3)) for host in range(2)]
    for one, other in zip(whole, joined(shares), strict=True):
        np.testing.assert_array_equal(one, other)
    _, labels, weights = joined(open_share(0, 1).eval_batches("validation", 50))
    parts = [joined(open_share(host, 2).eval_batches("validation", 50)) for host in range(2)]
    assert weights.sum() == sum(part[2].sum() for part in parts) == 128
    np.testing.assert_array_equal(labels[:50], np.concatenate([part[1][:25] for part in parts]))


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("synthetic:10x1", {}, "a stream has 3 channels, synthetic:10x1 has 1"),
        ("synthetic:10", {}, "synthetic:CLASSESxCHANNELS, not synthetic:10"),
        ("synthetic:10x3", {"train_size": 0}, "train_size=0 and validation_size=128"),
        ("synthetic:10x3", {"validation_size": -1}, "validation_size=-1: they must be at least 1 and 0"),
    ],
)
def test_made_up_images_that_cannot_be_are_named(source, settings, message):
    with pytest.raises(ValueError, match=message):
        data.open_stream(data.DataSettings(source, crop=8, **settings))


# As a training opens them


def feed_of(overrides, config):
    config.update_from_flattened_dict(overrides)
    return make_feed(config, jax.random.key(0), data_mesh(jax.devices()[:1]))


@pytest.mark.parametrize("recipe", [imagenet_resnet50.get_config(), imagenet_efficientnet.get_config("b1")])
def test_a_recipe_runs_on_made_up_images_of_the_shape_of_imagenet(recipe):
    feed = feed_of({"data.source": "synthetic:1000x3"}, recipe)
    side = {"resnet50": 224, "efficientnet_b1": 240}[recipe.model.name]
    assert (feed.images.shape, feed.images.num_classes) == ((side, side, 3), 1000)
    assert feed.sizes == {"train": 1_271_167, "validation": 10_000, "test": 128}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.crop": 0}, "data.crop must be from 1 to 4096, got 0"),
        ({"data.image_size": 0}, "data.image_size must be from 1 to 4096, got 0"),
        ({"seed": -1}, "^seed must be at least 0 .* got -1"),
        ({"data.seed": -2}, "^data.seed must be at least 0 .* got -2"),
        ({"data.workers": -1}, "data.workers must be from 0 to 4096, got -1"),
        ({"data.randaugment.layers": -1}, "randaugment.layers .* got -1"),
    ],
)
def test_settings_of_a_training_are_named_as_the_config_has_them(overrides, message):
    config = train.get_config()
    config.update_from_flattened_dict({"data.source": "synthetic:10x3", "data.stream": True} | overrides)
    with pytest.raises(ValueError, match=message):
        build_task(config, jax.devices()[:1])
