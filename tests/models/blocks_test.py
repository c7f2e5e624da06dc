"""Inside the networks: the order of the sites, the places of residuals, and dropping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_probes import Constructor, calls_of, normal, random_variables, shapes_of

from evonorms_jax import models
from evonorms_jax.models.classifier import Classifier
from evonorms_jax.models.inverted_bottleneck import InvertedBottleneck
from evonorms_jax.models.resnet import BottleneckBlock


def block_order(model, block):
    """Names of the modules that one block calls, in order."""
    return [m.name for m in calls_of(model) if m.parent is not None and m.parent.name == block]


def test_order_in_a_resnet_block():
    model = models.ResNet(Constructor(), stages=((8, 1, 1), (8, 2, 2)))
    branch = ["conv_1", "norm_2", "conv_2", "norm_3", "conv_3"]
    assert block_order(model, "stage_2_block_1") == ["norm_1", "shortcut", *branch]
    assert block_order(model, "stage_2_block_2") == ["norm_1", *branch]


def test_order_in_an_inverted_bottleneck():
    before = ["expand", "norm_expand", "depthwise", "norm_depthwise"]
    mobilenet = models.get_model("mobilenet_v2").build(Constructor(), 10)
    order = block_order(mobilenet, "stage_2_block_1")
    assert order == [*before, "project", "affine_project"]
    assert block_order(mobilenet, "stage_1_block_1") == [*before[2:], "project", "affine_project"]
    efficientnet_b0 = models.get_model("efficientnet_b0").build(Constructor(), 10)
    order = block_order(efficientnet_b0, "stage_2_block_1")
    assert order == [*before, "squeeze_excite", "project", "affine_project"]


def test_mobilenet_takes_the_residual_where_shapes_agree(rng):
    stages = models.MobileNetV2.keywords["stages"][:4]
    model = models.MobileNetV2(norm_act=Constructor(), width=0.5, stages=stages)
    variables = random_variables(rng, model, side=16)

    def branch_to_a_constant(path, leaf):
        names = [key.key for key in path]
        if "affine_project" not in names:
            return leaf
        return jnp.zeros_like(leaf) if "scale" in names else jnp.full_like(leaf, 3.0)

    params = jax.tree_util.tree_map_with_path(branch_to_a_constant, variables["params"])
    variables = {**variables, "params": params}

    def intermediates(variables, x):
        return model.apply(variables, x, train=False, capture_intermediates=True)[1]["intermediates"]

    # A block without a residual now puts out 3; each residual after it adds another 3.
    outputs = jax.jit(intermediates)(variables, normal(rng, 1, 16, 16, 3))
    values = {
        name: np.unique(output["__call__"][0]).tolist()
        for name, output in outputs.items()
        if name.startswith("stage_")
    }
    expected = {
        f"stage_{i}_block_{j}": [3.0 * j]
        for i, stage in enumerate(stages, start=1)
        for j in range(1, stage.blocks + 1)
    }
    assert values == expected


@pytest.mark.parametrize(("stride", "features"), [(2, 8), (1, 16)])
def test_inverted_bottleneck_has_no_residual_where_shapes_differ(rng, stride, features):
    block = InvertedBottleneck(Constructor(), features, stride, expansion=2, kernel=3)
    x = normal(rng, 2, 6, 6, 8)
    y = zero_parameters(block, x)
    assert y.shape == (2, 6 // stride, 6 // stride, features)
    np.testing.assert_array_equal(y, 0.0)


def test_resnet_block_is_the_identity_around_all_of_it(rng):
    x = normal(rng, 2, 6, 6, 32)
    np.testing.assert_array_equal(zero_parameters(BottleneckBlock(Constructor(), 8), x), x)


def zero_parameters(block, x):
    variables = block.init(jax.random.key(0), x, train=False)
    variables = {**variables, "params": jax.tree.map(jnp.zeros_like, variables["params"])}
    return block.apply(variables, x, train=False)


def test_projection_shortcut_takes_the_first_normalized_map(rng):
    x = normal(rng, 2, 6, 6, 16)
    block = BottleneckBlock(Constructor(), width=8, stride=2)
    variables = block.init(jax.random.key(0), x, train=False)
    variables["params"]["conv_3"]["kernel"] *= 0.0
    shortcut = variables["params"]["shortcut"]["kernel"]
    # The stand-in at its start, in inference: ReLU of x over sqrt(1 + epsilon).
    expected = jax.nn.relu(x[:, ::2, ::2]) @ shortcut[0, 0] / np.sqrt(1.0 + 1e-5)
    np.testing.assert_allclose(block.apply(variables, x, train=False), expected, atol=1e-5)


def test_classifier_pools_in_float32(rng):
    x = normal(rng, 2, 16, 16, 4).astype(jnp.bfloat16)
    params = {"dense": {"kernel": jnp.ones((4, 1)), "bias": jnp.ones(1)}}
    logits = Classifier(1).apply({"params": params}, x, train=False)
    expected = 1.0 + np.asarray(x, np.float64).mean((1, 2)).sum(-1, keepdims=True)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_squeeze_excite_is_sized_by_the_channels_into_the_block():
    model = models.get_model("efficientnet_b0").build(Constructor(), 10)
    gate = shapes_of(model)["params"]["stage_2_block_1"]["squeeze_excite"]
    assert gate["reduce"]["kernel"].shape == (1, 1, 96, 4)  # a quarter of 16, not of 96
    assert gate["expand"]["kernel"].shape == (1, 1, 4, 96)


def test_drop_connect_grows_with_the_block():
    model = models.get_model("efficientnet_b0").build(Constructor(), 10)
    blocks = [m for m in calls_of(model) if isinstance(m, InvertedBottleneck)]
    np.testing.assert_allclose([b.drop_rate for b in blocks], 0.2 * np.arange(16) / 16)


def test_drop_connect_drops_the_branch_of_whole_examples(rng):
    x = normal(rng, 64, 4, 4, 8)
    block = InvertedBottleneck(Constructor(), features=8, stride=1, expansion=2, kernel=3, drop_rate=0.25)
    variables = block.init(jax.random.key(0), x, train=False)
    branch = block.apply(variables, x, train=False) - x

    # Statistics as in inference, so that the branch is the same with and without dropping.
    frozen = block.clone(norm_act=FrozenConstructor())
    dropped = frozen.apply(variables, x, train=True, rngs={"dropout": jax.random.key(1)}) - x
    kept = np.asarray(jnp.any(dropped != 0.0, axis=(1, 2, 3)))
    assert 0.5 < kept.mean() < 0.95
    np.testing.assert_allclose(dropped[kept], branch[kept] / 0.75, rtol=1e-4, atol=1e-5)


class FrozenConstructor(Constructor):
    """Layers that use their moving statistics, whatever the model says."""

    def __call__(self, **fields):
        return super().__call__(**{**fields, "use_running_average": True})

    def affine(self, **fields):
        return super().affine(**{**fields, "use_running_average": True})
