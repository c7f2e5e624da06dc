"""From configs to trainings of a generator: checks of labels, and settings that are refused."""

import jax
import numpy as np
import pytest
from support.gan_configs import tiny_config

from evonorms_jax.data import ImageSet
from evonorms_jax.gan import task as gan_task
from evonorms_jax.gan.labels import check_all_labels, check_drawn_labels
from evonorms_jax.gan.layouts import get_layout
from evonorms_jax.gan.task import build_task
from evonorms_jax.runs.config_checks import flat
from evonorms_jax.training import classification, loop
from experiments.configs import gan_cifar10, gan_imagenet128


@pytest.mark.exhaustive
def test_a_loss_that_is_not_finite_ends_the_training_with_its_name(tmp_path):
    config = tiny_config(**{"adam.generator_rate": 1e38, "steps": 8, "eval_every": 8, "checkpoint_every": 8})
    with pytest.raises(
        FloatingPointError, match=r"the [a-z ]+ is (nan|inf|-inf) at step 1: the training is lost"
    ):
        loop.train(config, tmp_path, lambda config: build_task(config, jax.devices()[:1]))


def test_every_class_must_have_a_training_image(monkeypatch):
    read = classification.load_images

    def all_of_one_class(settings, **options):
        data = read(settings, **options)
        return data._replace(train=ImageSet(data.train.images, np.zeros_like(data.train.labels)))

    monkeypatch.setattr(classification, "load_images", all_of_one_class)
    with pytest.raises(ValueError, match="3 of 4 classes have no training image, the first is class 1"):
        build_task(tiny_config(), jax.devices()[:1])


def test_labels_of_a_batch_are_checked_by_what_is_to_be_expected(rng):
    check_drawn_labels(rng.integers(1000, size=512), 1000, "set")
    check_drawn_labels(np.array([3]), 1000, "set")
    check_drawn_labels(rng.integers(10, size=64), 10, "set")
    check_all_labels(np.arange(10), 10, "set")
    with pytest.raises(
        ValueError, match="first 512 training images have 1 of 1000 classes, 401 were expected"
    ):
        check_drawn_labels(np.zeros(512, int), 1000, "set")
    with pytest.raises(ValueError, match="have 4 of 10 classes"):
        check_drawn_labels(rng.integers(4, size=512), 10, "set")


@pytest.mark.parametrize(("overrides", "message"), [
    ({"dtype": "float16"}, "unknown dtype 'float16'; there are float32, bfloat16"),
    ({"data.crop": 9, "data.image_size": 9}, "the blocks of biggan make images of side .*, not 9"),
    ({"data.image_size": 10}, r"data.image_size must equal data.crop, 8, .* have side 10"),
    ({"networks.name": "dcgan"}, "unknown networks 'dcgan'"),
    ({"layer.spec": "bn_rel"}, "unknown layer 'bn_rel'"),
    ({"discriminator_steps": 0}, "discriminator_steps must be from 1 to 64, got 0"),
    ({"average_decay": 1.0}, "average_decay must be at least 0 and below 1, got 1.0"),
    ({"statistics_batch": 5}, "batch_size must be a multiple of statistics_batch x accumulate"),
    ({"sampling.method": "half"}, "sampling.method must be one of"),
    ({"batch_size": 3}, "batch_size must be a multiple of the number of devices, 8, got 3"),
    ({"batch_size": 64, "discriminator_steps": 2}, "batch_size must be from 1 to the number of .* got 128"),
])  # fmt: skip
def test_settings_that_cannot_be_trained_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        build_task(tiny_config(**overrides))


@pytest.mark.parametrize("config", [gan_imagenet128, gan_cifar10], ids=lambda module: module.__name__[20:])
def test_every_recipe_can_be_traced_in_its_quick_form(config):
    full, quick = config.get_config(), config.get_config("quick")
    assert set(flat(full)) == set(flat(quick))
    task = build_task(quick, jax.devices()[:1])
    assert task.steps == 8 and jax.tree.leaves(task.target.params)


@pytest.mark.parametrize("form", ["full", *gan_imagenet128.FORMS])
def test_every_form_of_imagenet_has_its_networks(form):
    config = gan_imagenet128.get_config(form)
    assert get_layout(config.networks.name, config.data.crop).bottom == 4
    assert config.networks.name == ("biggan" if form.startswith("plain") else "biggan_deep")
    assert config.batch_size == 2048 and config.dtype == "bfloat16" and config.data.stream


def test_a_form_of_imagenet_that_is_unknown():
    with pytest.raises(ValueError, match=r"form must be deep, plain, .* or quick, got 'deep512'"):
        gan_imagenet128.get_config("deep512")


def test_the_deep_networks_of_the_same_config_can_be_traced():
    task = build_task(tiny_config(**{"networks.name": "biggan_deep", "layer.spec": "evonorm_s0"}))
    assert dict(task.about)["networks"] == "biggan_deep" and not task.criterion.largest
    assert {leaf.sharding.mesh.size for leaf in jax.tree.leaves(task.target)} == {8}


def test_an_evaluation_has_the_quick_scores_and_a_sheet(monkeypatch, tmp_path):
    class Scorer:
        def evaluate(self, sample, part, stop):
            return {} if stop() else {"frechet": float(len(sample(np.zeros(3, np.int32), 0))), "part": part}

    def make_sampler(config, state):
        return lambda labels, seed: np.zeros((len(labels), 8, 8, 1), np.uint8)

    monkeypatch.setattr(gan_task, "make_scorer", lambda config: Scorer())
    monkeypatch.setattr(gan_task, "make_sampler", make_sampler)
    monkeypatch.setattr(gan_task, "make_mean_logit", lambda *_: lambda state, batches, stop: 0.5)
    task = build_task(tiny_config(**{"scores.network": "classifier"}), jax.devices()[:1])
    assert task.evaluate(None, "test", lambda: False) == {"logit": 0.5, "frechet": 3.0, "part": "test"}
    assert task.evaluate(None, "test", lambda: True) == {"logit": 0.5}
    task.illustrate(task.target._replace(step=np.int32(40)), tmp_path)
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["step-000040.png"]
    without = build_task(tiny_config(), jax.devices()[:1])
    assert without.evaluate(None, "test", lambda: False) == {"logit": 0.5}
