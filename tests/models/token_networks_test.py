"""Token networks: attention and positions against NumPy, the sites of the layer, and their use as anchors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.model_probes import BatchNormRelu, Constructor, calls_of, normal, shapes_of

import evonorms_jax as en
from evonorms_jax import models
from evonorms_jax.evolution.proxy import ProxySettings, make_proxy_task
from evonorms_jax.models.patches import sine_cosine
from evonorms_jax.models.vision_transformer import Attention, VisionTransformer
from evonorms_jax.search_space import CATALOG

TOKEN_ANCHORS = ("vit_digits", "mixer_digits", "convnext_digits")
SMALL = {"features": 16, "depth": 3}  # of all three, with a loop over two blocks


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def test_attention_is_that_of_numpy(rng):
    x, heads = normal(rng, 2, 5, 12), 3
    module = Attention(heads)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: normal(rng, *leaf.shape), shapes)
    kernel, bias = (np.asarray(params["query_key_value"][name], np.float64) for name in ("kernel", "bias"))
    query, key, value = np.split(np.asarray(x, np.float64) @ kernel + bias, 3, -1)
    parts = []
    for head in range(heads):
        q, k, v = (part[..., 4 * head : 4 * head + 4] for part in (query, key, value))
        parts.append(softmax(q @ k.swapaxes(1, 2) / 2) @ v)
    project = params["project"]
    expected = np.concatenate(parts, -1) @ np.asarray(project["kernel"]) + np.asarray(project["bias"])
    np.testing.assert_allclose(jax.jit(module.apply)({"params": params}, x), expected, rtol=1e-4, atol=1e-4)


def test_fixed_positions_are_sines_and_cosines_of_the_place():
    found = sine_cosine(3, 4, 16).reshape(3, 4, 16)
    frequencies = 10_000.0 ** -(np.arange(4) / 3)
    waves = [
        np.sin(3 * frequencies),
        np.cos(3 * frequencies),
        np.sin(2 * frequencies),
        np.cos(2 * frequencies),
    ]
    np.testing.assert_allclose(found[2, 3], np.concatenate(waves), atol=1e-6)


def only_positions(grid, side, class_token):
    """The tokens of a black image after a block that adds nothing: positions alone. Also the parameters."""
    sizes = {"features": 16, "depth": 1, "heads": 2, "patch": 4, "grid": grid, "class_token": class_token}
    model = VisionTransformer(Constructor(), num_classes=10, **sizes)
    images = jnp.zeros((1, side, side, 3))
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images)

    def silent(path, leaf):
        return leaf * 0 if {"project", "dense_2"} & {key.key for key in path} else leaf

    variables["params"] = jax.tree_util.tree_map_with_path(silent, variables["params"])

    @jax.jit
    def intermediates(variables):
        chosen = functools.partial(model.apply, capture_intermediates=lambda m, _: m.name == "norm_final")
        return chosen(variables, images, train=False)[1]

    state = intermediates(variables)
    (normed,) = state["intermediates"]["norm_final"]["__call__"]
    return np.asarray(normed[0]) * np.sqrt(1 + 1e-5), np.asarray(variables["params"]["positions"])


def test_learned_positions_have_a_place_each_and_the_class_token_one_of_its_own():
    tokens, positions = only_positions(grid=3, side=12, class_token=True)
    assert positions.shape == (10, 16)
    np.testing.assert_allclose(tokens, positions, atol=1e-6)


def test_learned_positions_are_interpolated_for_another_grid():
    tokens, positions = only_positions(grid=2, side=16, class_token=False)
    corners = tokens.reshape(4, 4, 16)[::3, ::3].reshape(4, 16)
    np.testing.assert_allclose(corners, positions, atol=1e-6)
    between = tokens.reshape(4, 4, 16)[0, 1]  # at a quarter of the way from the first to the second
    np.testing.assert_allclose(between, 0.75 * positions[0] + 0.25 * positions[1], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "norms", "blocks"),
    [
        ("vit_digits", 9, 4),
        ("mixer_digits", 9, 4),
        ("convnext_digits", 5, 4),
        ("vit_narrow", 17, 8),
        ("mixer_narrow", 9, 4),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_sites_are_norms_and_with_a_flag_the_activations_of_the_mlps(name, norms, blocks, inside):
    model = models.get_anchor(name).build(Constructor(), 10, scan_blocks=False, mlp_norm_act=inside)
    layers = [module for module in calls_of(model, side=24) if isinstance(module, BatchNormRelu)]
    assert [layer.nonlinear for layer in layers].count(False) == norms
    assert [layer.name for layer in layers if layer.nonlinear] == inside * blocks * ["norm_hidden"]
    assert layers[-1].name == "norm_final"


def test_a_place_for_a_norm_gets_no_activation_if_the_layer_can_do_without():
    alone = {name: not en.norm_act(name).norm().nonlinearity for name in en.layers.LAYERS}
    whole = {name for name, without in alone.items() if not without}
    assert whole == {*CATALOG, "dyt", "derf"}
    graph = en.norm_act(CATALOG["evonorm_b0"]).norm(name="n")
    assert graph.nonlinearity and graph.name == "n"


@pytest.mark.parametrize("name", ["vit_digits", "convnext_digits"])
def test_an_image_of_another_size_needs_no_other_parameters(name):
    model = models.get_anchor(name).build(Constructor(), 10, **SMALL)
    params = shapes_of(model, side=24)
    assert shapes_of(model, side=28) == shapes_of(model, side=10) == params


def test_a_mixer_takes_one_size():
    model = models.get_anchor("mixer_digits").build(Constructor(), 10)
    with pytest.raises(
        ValueError, match=r"images of 24x24 .*, got 28x28: set data.image_size and data.crop to 24"
    ):
        shapes_of(model, side=28)


@pytest.mark.parametrize("name", TOKEN_ANCHORS)
def test_every_token_reaches_the_logits_and_every_parameter_the_loss(name, rng):
    model = models.get_anchor(name).build(en.norm_act("lnc"), 10, **SMALL)
    images = normal(rng, 2, 24, 24, 1)
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images)

    def loss(params, images):
        logits = model.apply({"params": params}, images, train=True)
        return jnp.sum(logits * jnp.arange(10)[None])

    params, pixels = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables["params"], images)
    # The bias of the keys moves all logits of a query by the same number, and no gradient reaches it.
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        assert np.any(leaf != 0), path
    assert np.all(np.any(np.asarray(pixels).reshape(2, 6, 4, 6, 4) != 0, axis=(2, 4)))


@pytest.mark.parametrize(
    "name", ["vit_digits", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in TOKEN_ANCHORS[1:])]
)
def test_an_anchor_runs_candidates_as_data_and_replicas_side_by_side(name, rng):
    """The loss of encoded graphs for two replicas at once is that of compiled graphs, one by one."""
    anchor = models.get_anchor(name)
    anchor = anchor._replace(constructor=functools.partial(anchor.constructor, **SMALL))
    settings = ProxySettings(1, 4, 0.1, "constant", 0, 0.9, 0.0, 2, 4, 24, False)
    task = make_proxy_task(anchor, 10, {"group_size": 8}, settings, 1)
    images, labels = normal(rng, 4, 24, 24, 1), jnp.arange(4)
    keys = jax.random.split(jax.random.key(0), 2)
    starts = jax.jit(jax.vmap(task.init, in_axes=(None, 0)))(task.encode(CATALOG["evonorm_b0"]), keys)

    def gradients(candidate, start):
        def of_params(params):
            return task.loss(candidate, params, start.stats, images, labels)[0]

        return jax.value_and_grad(of_params)(start.params)

    side_by_side = jax.jit(jax.vmap(gradients, in_axes=(None, 0)))
    graph = CATALOG["evonorm_s0"]
    compiled = jax.jit(functools.partial(gradients, graph))
    losses, found = side_by_side(task.encode(graph), starts)
    for replica in range(2):
        start = jax.tree.map(lambda leaf, replica=replica: leaf[replica], starts)
        loss, expected = compiled(start)
        assert float(losses[replica]) == pytest.approx(float(loss), rel=1e-4)
        largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(expected))
        jax.tree.map(
            lambda a, b, replica=replica, size=largest: np.testing.assert_allclose(
                a[replica], b, atol=1e-3 * size
            ),
            found,
            expected,
        )
