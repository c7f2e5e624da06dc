"""From configs to trainings: lengths, rates, dtypes, the published recipes, and refused settings."""

import math
import re

import jax
import jax.numpy as jnp
import pytest
from support.data_sets import examples
from support.train_runs import SharedTasks

from evonorms_jax.models import get_model
from evonorms_jax.training import evaluation, loop
from evonorms_jax.training.classification import build_task
from experiments.benchmarks.prepared_set import write_set
from experiments.configs import (
    imagenet_efficientnet,
    imagenet_mnasnet,
    imagenet_mobilenet_v2,
    imagenet_resnet50,
    imagenet_resnet101,
    imagenet_vit,
)
from experiments.configs.train import get_config

RECIPES = {
    "resnet50": imagenet_resnet50,
    "resnet101": imagenet_resnet101,
    "mobilenet_v2": imagenet_mobilenet_v2,
    "mnasnet_a1": imagenet_mnasnet,
    "efficientnet_b0": imagenet_efficientnet,
    "vit_s16": imagenet_vit,
}


def small(**overrides):
    config = get_config("quick")
    settings = {
        "data.source": "synthetic",
        "data.image_size": 8,
        "data.crop": 8,
        "data.train_size": 64,
        "data.validation_size": 16,
        "batch_size": 16,
        "eval_batch_size": 16,
        "model.name": "resnet_tiny",
    }
    config.update_from_flattened_dict(settings | overrides)
    return config


def test_epochs_are_turned_into_steps():
    task = build_task(small(epochs=3.0, **{"optimizer.warmup_epochs": 1.0, "optimizer.schedule": "constant"}))
    assert task.steps == 12
    assert [float(task.learning_rate(step)) for step in (0, 3, 4)] == pytest.approx([0.025, 0.1, 0.1])


def test_the_rate_scales_with_the_batch():
    task = build_task(
        small(batch_size=32, **{"optimizer.reference_batch": 256, "optimizer.schedule": "constant"})
    )
    assert float(task.learning_rate(50)) == pytest.approx(0.1 * 32 / 256)


@pytest.mark.parametrize("layer", ["bn_relu", "evonorm_b0", "evonorm_s0"])
def test_bfloat16_keeps_parameters_and_statistics_in_float32(layer):
    config = small(dtype="bfloat16", average_decay=0.9, **{"layer.spec": layer})
    task = build_task(config, jax.devices()[:1])
    state, _ = jax.eval_shape(task.train_step, task.target, next(task.batches(0)))
    held = (state.params, state.batch_stats, state.opt_state, state.average)
    assert {leaf.dtype for leaf in jax.tree.leaves(held)} <= {jnp.dtype("float32"), jnp.dtype("int32")}


def test_bfloat16_computes_nearly_the_loss_of_float32():
    losses = []
    for dtype in ("float32", "bfloat16"):
        task = build_task(small(dtype=dtype), jax.devices()[:1])
        losses.append(task.evaluate(task.init(), "validation", lambda: False)["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02) and losses[1] != losses[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dtype": "float16"}, "unknown dtype 'float16'; there are float32, bfloat16"),
        ({"epochs": 0.01}, "steps must be at least 1, got 0"),
        ({"eval_every": 0}, "eval_every must be at least 1"),
        ({"batch_size": 24, "statistics_batch": 16}, "batch_size must be a multiple of statistics_batch"),
        ({"data.augment": "randaugment"}, r"data\.augment=randaugment needs data\.stream=true"),
        ({"optimizer.name": "adam"}, "unknown optimizer 'adam'"),
        ({"model.drop_connect_rate": 0.1}, "unknown field of resnet_tiny 'drop_connect_rate'"),
    ],
)
def test_what_cannot_be_trained_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        build_task(small(**overrides))


@pytest.mark.parametrize(
    ("key", "value", "limit"),
    [
        ("seed", -1, "at least 0 and below 4294967296"),
        ("epochs", math.nan, "above 0"),
        ("epochs", math.inf, "finite"),
        ("mixup", math.nan, "at least 0"),
        ("model.width", math.inf, "above 0 and at most 100"),
        ("data.image_size", 100_000, "from 1 to 4096"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_key(key, value, limit):
    with pytest.raises(ValueError, match=f"^{re.escape(key)} must be {limit}, got {value}$"):
        build_task(small(**{key: value}))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_for_their_models(name):
    """The full form is checked as far as possible without ImageNet, and the quick form has the same keys."""
    full = RECIPES[name].get_config()
    assert full.model.name == name
    get_model(name).build(lambda **_: None, 1000)
    assert full.data.stream and full.data.source == "tfds:imagenet2012"
    assert full.batch_size % full.statistics_batch == 0
    quick = RECIPES[name].get_config("quick")
    assert set(full.keys()) == set(quick.keys())


@pytest.mark.parametrize("variant", [f"b{number}" for number in range(8)])
def test_every_efficientnet_has_its_form(variant):
    config = imagenet_efficientnet.get_config(variant)
    assert config.model.name == f"efficientnet_{variant}" and config.average_decay == 0.9999
    assert imagenet_efficientnet.get_config(f"{variant}-quick").model.name == config.model.name


def test_a_variant_that_is_none():
    with pytest.raises(ValueError, match="form must be b0 to b7"):
        imagenet_efficientnet.get_config("b8")


def test_a_vit_has_two_forms_and_their_quick_ones():
    for form, name in (("b16", "vit_b16"), ("b16-quick", "vit_b16"), ("full", "vit_s16")):
        assert imagenet_vit.get_config(form).model.name == name
    with pytest.raises(ValueError, match="form must be s16 or b16, with -quick or without, got 'l16'"):
        imagenet_vit.get_config("l16")


@pytest.mark.exhaustive
def test_a_step_of_the_largest_recipe_of_the_tables_on_eight_devices_can_be_traced():
    """To build EfficientNet-B5 for eight CPU devices takes minutes and gigabytes."""
    assert build_task(imagenet_efficientnet.get_config("b5-quick")).steps > 0


def one_step(config):
    config.statistics_batch = config.batch_size // 8
    task = build_task(config)
    state, metrics = task.train_step(task.init(), next(task.batches(0)))
    assert int(state.step) == 1 and jnp.isfinite(metrics["loss"])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", RECIPES)
def test_one_step_of_every_recipe_on_eight_devices(name):
    one_step(RECIPES[name].get_config("quick"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_traced_on_eight_devices_with_a_one_block_network(name):
    config = RECIPES[name].get_config("quick")
    config.statistics_batch = config.batch_size // 8
    config.model.update({"name": "resnet_tiny", "dropout_rate": None, "drop_connect_rate": None})
    task = build_task(config)
    assert task.steps == 16 and {leaf.sharding.mesh.size for leaf in jax.tree.leaves(task.target)} == {8}


def test_one_step_of_the_longest_recipe_on_eight_devices_with_a_one_block_network():
    """RMSProp, the moving average, smoothed labels, bfloat16, and a group of images for each device."""
    config = imagenet_efficientnet.get_config("quick")
    config.model.name, config.data.image_size, config.data.crop = "resnet_tiny", 8, 8
    one_step(config)


FAMILIES = ["resnet_tiny", "efficientnet_small"]
FAMILIES += [pytest.param("vit_digits", marks=pytest.mark.exhaustive)]
FAMILIES += [pytest.param(f"{name}_small", marks=pytest.mark.exhaustive) for name in ("mobilenet", "mnasnet")]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_learns_sixteen_images_by_heart(name):
    overrides = {"model.name": name, "data.train_size": 16, "layer.spec": "evonorm_b0", "steps": 200}
    task = build_task(small(**overrides), jax.devices()[:1])
    state, batches = task.init(), task.batches(0)
    for _ in range(task.steps):
        state, metrics = task.train_step(state, next(batches))
    assert float(metrics["accuracy"]) == 1.0


# -- Photographs read as they are needed


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """As ImageNet is prepared: JPEGs of several sizes, one grey, one CMYK, one damaged."""
    root = tmp_path_factory.mktemp("tfds")
    rare = {1: "grey", 5: "cmyk", 9: "truncated"}
    photos = {"train": examples(28, rare), "validation": examples(6)}
    write_set(root, "photos", photos, num_classes=3)
    return root


def streamed(photographs, **overrides):
    settings = {
        "data.source": "tfds:photos",
        "data.data_dir": str(photographs),
        "data.stream": True,
        "data.augment": "randaugment",
        "data.threads": 2,
        "data.train_size": None,
        "data.image_size": None,
        "data.validation_size": 4,
        "data.crop": 16,
        "batch_size": 8,
        "eval_batch_size": 8,
        "steps": 6,
        "checkpoint_every": 3,
        "optimizer.warmup_steps": 1,
    }
    return small(**settings | overrides)


@pytest.fixture
def tasks(monkeypatch):
    """Trainings and evaluations of one config share their programs."""
    shared = SharedTasks(build_task)
    for module in (loop, evaluation):
        monkeypatch.setattr(module, "build_task", shared)
    return shared


def test_a_training_on_photographs_is_resumed_as_if_it_had_not_stopped(photographs, tmp_path, tasks):
    """Its place among the pictures follows from the step."""
    tasks.devices = 1
    whole = loop.train(streamed(photographs), tmp_path / "whole")
    assert whole.validation and whole.test
    tasks.last = 4
    with pytest.raises(OSError, match="power cut"):
        loop.train(streamed(photographs), tmp_path / "broken")
    tasks.last = None
    assert loop.train(streamed(photographs), tmp_path / "broken") == whole


def test_a_checkpoint_is_evaluated_on_any_part(tmp_path, tasks):
    tasks.devices = 1
    result = loop.train(small(steps=6, **{"optimizer.warmup_steps": 1}), tmp_path / "run")
    step, found = evaluation.evaluate(tmp_path / "run", "test")
    assert (step, found) == (6, result.test)
    assert evaluation.evaluate(tmp_path / "run", "validation", best=True)[1] == result.validation
    assert evaluation.evaluate(tmp_path / "run", "train")[1]["accuracy"] > 0
    with pytest.raises(ValueError, match="is no work directory"):
        evaluation.evaluate(tmp_path / "none", "test")


def test_a_damaged_picture_is_told_where_all_are_held_in_memory(photographs):
    config = streamed(photographs, **{"data.stream": False, "data.augment": "none", "data.image_size": 16})
    with pytest.raises(ValueError, match=r"train: picture \d+ is damaged: .*data\.stream=true"):
        build_task(config)


def test_no_validation_part_is_no_error(photographs, tmp_path, tasks):
    tasks.devices = 1
    config = streamed(photographs, **{"data.validation_size": 0})
    result = loop.train(config, tmp_path / "run")
    assert result.validation == {} and result.test["accuracy"] >= 0
    with pytest.raises(ValueError, match=r"validation part of .* is empty"):
        evaluation.evaluate(tmp_path / "run", "validation")
