"""The networks: published sizes, shapes, sites, and that they know no layer but the injected."""

import ast
import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_probes import (
    BatchNormRelu,
    Constructor,
    Identity,
    calls_of,
    exhaustive,
    normal,
    random_variables,
    shapes_of,
)

from evonorms_jax import models
from evonorms_jax.models.convolution import make_divisible
from evonorms_jax.models.inverted_bottleneck import InvertedBottleneck
from evonorms_jax.models.resnet import BottleneckBlock

PUBLISHED_PARAMETERS = {
    "resnet50": 25_549_352,
    "resnet101": 44_541_480,
    "mobilenet_v2": 3_504_872,
    "mnasnet_a1": 3_887_038,
    "mnasnet_b1": 4_383_312,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    "vit_s16": 22_050_664,
    "vit_b16": 86_567_656,
}
#: Side of the images of networks that take one size only.
SIDES = {"mixer_digits": 24, "mixer_narrow": 24}
SMALL = ("resnet_small", "mobilenet_small", "efficientnet_small")
EVERY_NETWORK = models.MODELS | models.ANCHORS


def sides_of(model, side):
    """Height of the feature map after the stem and after the last block of each stage."""
    variables = shapes_of(model, side)
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)

    def intermediates(variables, images):
        _, state = model.apply(variables, images, train=False, capture_intermediates=True)
        return state["intermediates"]

    sizes = {
        name: output["__call__"][0].shape[1]
        for name, output in jax.eval_shape(intermediates, variables, images).items()
        if name == "stem" or name.startswith("stage_")
    }
    # Blocks of a stage overwrite each other, so that the last one of each stays.
    blocks = sorted(sizes.items(), key=lambda item: [int(s) for s in item[0].split("_")[1::2]])
    return list({name.split("_block")[0]: size for name, size in blocks}.values())


@pytest.mark.parametrize("name", exhaustive(EVERY_NETWORK))
def test_logits_in_both_modes_and_published_number_of_parameters(name):
    model = EVERY_NETWORK[name].build(Constructor(), num_classes=1000, dtype=jnp.bfloat16)
    side = SIDES.get(name, 32)
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}

    def evaluate(images):
        return model.init_with_output(rngs, images, train=False)

    def train(variables, images):
        return model.apply(variables, images, train=True, mutable=["batch_stats"], rngs=rngs)

    logits, variables = jax.eval_shape(evaluate, images)
    assert (logits.shape, logits.dtype) == ((2, 1000), jnp.float32)
    logits, updates = jax.eval_shape(train, variables, images)
    assert (logits.shape, logits.dtype) == ((2, 1000), jnp.float32)
    assert jax.tree.structure(updates["batch_stats"]) == jax.tree.structure(variables["batch_stats"])
    if name in PUBLISHED_PARAMETERS:
        count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
        assert count == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "side", "expected"),
    [
        ("resnet50", 224, [112, 56, 28, 14, 7]),
        ("mobilenet_v2", 224, [112, 112, 56, 28, 14, 14, 7, 7]),
        ("mnasnet_a1", 224, [112, 112, 56, 28, 14, 14, 7, 7]),
        ("efficientnet_b0", 224, [112, 112, 56, 28, 14, 14, 7, 7]),
        # Stride 1 in the stem and in the next convolution that reduces; ResNet's pooling stays.
        ("resnet50_cifar", 24, [24, 12, 12, 6, 3]),
        ("mobilenet_v2_cifar", 24, [24, 24, 24, 12, 6, 6, 3, 3]),
        ("efficientnet_b0_cifar", 24, [24, 24, 24, 12, 6, 6, 3, 3]),
    ],
)
def test_resolutions(name, side, expected):
    assert sides_of(EVERY_NETWORK[name].build(Constructor(), num_classes=10), side) == expected


@pytest.mark.parametrize(
    ("name", "width", "full_size"),
    [
        ("resnet50_cifar", 0.25, "resnet50"),
        ("mobilenet_v2_cifar", 0.5, "mobilenet_v2"),
        ("efficientnet_b0_cifar", 0.5, "efficientnet_b0"),
    ],
)
def test_cifar_anchors_differ_from_the_full_model_in_width_strides_and_dropping_only(name, width, full_size):
    anchor = models.get_anchor(name).build(Constructor(), 10)
    full = models.get_model(full_size).build(Constructor(), 10)
    changed = {
        field.name: getattr(anchor, field.name)
        for field in dataclasses.fields(full)
        if getattr(anchor, field.name) != getattr(full, field.name)
    }
    stages = changed.pop("stages")
    assert [s._replace(stride=0) for s in stages] == [s._replace(stride=0) for s in full.stages]
    rates = ("dropout_rate", "drop_connect_rate")
    assert [getattr(anchor, rate, 0.0) for rate in rates] == [0.0, 0.0]
    changed = {name: value for name, value in changed.items() if name not in rates}
    assert changed == {"width": width, "stem_stride": 1}


@pytest.mark.parametrize(
    ("name", "sites", "affine"), [("resnet50", 49, 0), ("mobilenet_v2", 35, 17), ("efficientnet_b0", 33, 16)]
)
def test_number_of_sites(name, sites, affine):
    layers = site_layers(models.get_model(name).build(Constructor(), 10))
    assert [layer.nonlinear for layer in layers].count(True) == sites
    assert [layer.nonlinear for layer in layers].count(False) == affine


def site_layers(model, train=True):
    return [m for m in calls_of(model, train=train) if isinstance(m, BatchNormRelu)]


@pytest.mark.parametrize("name", SMALL)
def test_small_anchors_have_few_sites_and_every_kind_of_them(name):
    model = models.get_anchor(name).build(Constructor(), 10)
    assert sum(layer.nonlinear for layer in site_layers(model)) <= 10
    calls = calls_of(model)
    names = {module.name for module in calls}
    blocks = [m for m in calls if isinstance(m, BottleneckBlock | InvertedBottleneck)]
    if name == "resnet_small":
        assert "norm_final" in names
        shortcuts = [module.name for module in calls].count("shortcut")
        assert 0 < shortcuts < len(blocks)
    else:
        assert {"expand", "depthwise", "affine_project", "norm_head"} <= names
    assert ("squeeze_excite" in names) == (name == "efficientnet_small")


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_layers_are_told_whether_the_model_trains(name, train):
    layers = site_layers(models.get_model(name).build(Constructor(), 10), train=train)
    assert {layer.use_running_average for layer in layers} == {not train}


@pytest.mark.parametrize("name", ["resnet_small", "mobilenet_small"])
def test_a_network_without_its_layers_is_linear(rng, name):
    # So no normalization and no non-linearity is left in it (squeeze-excite and max-pool apart).
    overrides = {"stem_pool": False} if name == "resnet_small" else {}
    model = models.get_anchor(name).build(Constructor(Identity), 10, **overrides)
    variables = random_variables(rng, model, side=12)
    variables["params"]["classifier"]["dense"]["bias"] *= 0.0
    x, y = normal(rng, 2, 12, 12, 3), normal(rng, 2, 12, 12, 3)
    apply = jax.jit(lambda x: model.apply(variables, x, train=True))
    expected = 2.0 * apply(x) - apply(y)
    np.testing.assert_allclose(apply(2.0 * x - y), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("model", "dropout", "drop_connect"),
    [
        (models.EfficientNetB0, 0.2, 0.2),
        (models.EfficientNetB7, 0.5, 0.2),
        (models.MnasNetA1, 0.2, 0.0),
    ],
)
def test_full_size_models_drop_at_the_published_rates(model, dropout, drop_connect):
    network = model(norm_act=Constructor())
    assert (network.dropout_rate, network.drop_connect_rate) == (dropout, drop_connect)


@pytest.mark.parametrize("name", SMALL)
def test_small_anchors_train_a_step(rng, name):
    model = models.get_anchor(name).build(Constructor(), num_classes=10)
    images = normal(rng, 16, 12, 12, 1)
    labels = jnp.arange(16) % 10
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(images)

    def loss_fn(params):
        variables_now = {"params": params, "batch_stats": variables["batch_stats"]}
        logits, updates = model.apply(variables_now, images, train=True, mutable=["batch_stats"])
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -jnp.mean(picked), updates["batch_stats"]

    @jax.jit
    def step(params):
        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        return loss, stats, grads, jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)

    loss, stats, grads, params = step(variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0.0), f"{path} does not reach the loss"
    for old, new in zip(jax.tree.leaves(variables["batch_stats"]), jax.tree.leaves(stats), strict=True):
        assert np.any(old != new)
    assert step(params)[0] < loss


def test_overrides_reach_the_network():
    anchor = models.get_anchor("resnet_small")
    stages = ((8, 1, 2),)  # as from a config
    model = anchor.build(Constructor(), 10, width=2.0, stem_features=16, stages=stages)
    params = shapes_of(model)["params"]
    assert params["stem"]["kernel"].shape == (3, 3, 3, 32)
    assert params["stage_1_block_1"]["conv_3"]["kernel"].shape == (1, 1, 16, 64)
    assert "stage_2_block_1" not in params


def test_wrong_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="unknown anchor 'resnet_smal': did you mean 'resnet_small'"):
        models.get_anchor("resnet_smal")
    with pytest.raises(ValueError, match="unknown model 'resnet51': did you mean 'resnet50'"):
        models.get_model("resnet51")
    with pytest.raises(ValueError, match="field of resnet_small 'widht': did you mean 'width'"):
        models.get_anchor("resnet_small").build(Constructor(), 10, widht=2.0)


@pytest.mark.parametrize(
    ("channels", "expected"), [(1, 8), (11, 16), (12, 16), (16, 16), (18, 24), (19.2, 24), (33, 32)]
)
def test_make_divisible(channels, expected):
    assert make_divisible(channels) == expected


def test_make_divisible_refuses_no_channels():
    with pytest.raises(ValueError, match="must be positive, got 0"):
        make_divisible(0)


def test_no_model_names_a_norm():
    words = ("batchnorm", "groupnorm", "layernorm", "instancenorm", "rmsnorm", "evonorm_", "frn")
    for file in Path(models.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text())
        names = [n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
        names += [n.id for n in ast.walk(tree) if isinstance(n, ast.Name)]
        names += [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        named = [name for name in names if any(w in name.lower().replace(" ", "") for w in words)]
        assert not named, f"{file.name} names {named}"
