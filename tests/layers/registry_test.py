"""From names, graphs and files to constructors, and which parameters weight decay spares."""

import json

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from flax.traverse_util import flatten_dict

import evonorms_jax as en
from evonorms_jax import nnx as en_nnx
from evonorms_jax.layers import LAYERS, layer_file, load_layer
from evonorms_jax.search_space import CATALOG, random_graph

X = np.random.default_rng(1).normal(size=(2, 6, 5, 8)).astype(np.float32)


def run(layer):
    return layer.init_with_output(jax.random.key(0), X)[0]


@pytest.mark.parametrize("name", LAYERS)
def test_every_name_gives_a_layer_and_its_affine_twin(name):
    constructor = en.norm_act(name, use_running_average=False, groups=4)
    layer, affine = constructor(name="n"), constructor.affine(epsilon=1e-4)
    assert isinstance(layer, nn.Module)
    assert (layer.name, layer.groups, layer.nonlinearity) == ("n", 4, True)
    assert (affine.groups, affine.nonlinearity, affine.epsilon) == (4, False, 1e-4)
    assert run(layer).shape == run(affine).shape == X.shape
    if name in CATALOG:
        np.testing.assert_array_equal(run(affine), X)
    else:  # of a baseline, the norm is left: linear, so odd in x
        minus = affine.init_with_output(jax.random.key(0), -X)[0]
        np.testing.assert_allclose(minus, -run(affine), atol=1e-5)


@pytest.mark.parametrize("name", CATALOG)
def test_a_published_layer_equals_its_graph(name):
    by_name, by_graph = (en.norm_act(spec, use_running_average=False) for spec in (name, CATALOG[name]))
    np.testing.assert_allclose(run(by_name()), run(by_graph()), rtol=1e-6)


def test_an_unknown_name_is_one_clear_line():
    with pytest.raises(ValueError, match="unknown layer 'evonormb0'; did you mean 'evonorm_b0'"):
        en.norm_act("evonormb0")
    with pytest.raises(ValueError, match=r"unknown layer '42'; known: evonorm_b0, .*gelu, or a file"):
        en.norm_act("42")


def write_layers(path, graphs):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(layer_file([{"graph": graph.to_json()} for graph in graphs]))


def test_a_file_gives_back_the_graphs_that_were_saved(tmp_path, rng):
    path = tmp_path / "layers.json"
    graphs = [random_graph(rng) for _ in range(5)] + list(CATALOG.values())
    write_layers(path, graphs)
    assert [load_layer(f"{path}#{i}") for i in range(len(graphs))] == graphs
    assert load_layer(str(path)) == graphs[0]
    layer = en.norm_act(f"{path}#5", use_running_average=False)
    np.testing.assert_array_equal(run(layer()), run(en.EvoNormB0(use_running_average=False)))


@pytest.mark.parametrize("place", ["~/top.json", "~/run #2/top.json", "~/a#1.json", "~/a.json#b/top.json"])
def test_a_home_expands_and_the_last_hash_separates(place, tmp_path, monkeypatch, rng):
    monkeypatch.setenv("HOME", str(tmp_path))
    graphs = [random_graph(rng) for _ in range(3)]
    write_layers(tmp_path / place.removeprefix("~/"), graphs)
    assert load_layer(place) == graphs[0]
    assert [load_layer(f"{place}#{i}") for i in range(3)] == graphs
    assert en.norm_act(f"{place}#2") == en.norm_act(graphs[2])
    with pytest.raises(ValueError, match=r"has layers #0 to #2, got #3$"):
        load_layer(f"{place}#3")


@pytest.mark.parametrize("content, number, message", [
    (None, "0", "cannot read the layer file .*: No such file"),
    ('{"schema": 1, "layers": [', "0", "is damaged: it is not JSON"),
    ("[1, 2]", "0", "is not a layer file: expected an object with 'layers'"),
    ({"layers": []}, "0", "names no schema version"),
    ({"schema": 99, "layers": []}, "0", "has schema 99, this version reads up to 1"),
    ({"schema": 1, "layers": []}, "0", "has no layers"),
    ({"schema": 1, "layers": [{}, {}]}, "2", "has layers #0 to #1, got #2"),
    ({"schema": 1, "layers": [{}, {}]}, "-1", "has layers #0 to #1, got #-1"),
    ({"schema": 1, "layers": [{}, {}]}, "one", "has layers #0 to #1, got #one"),
    ({"schema": 1, "layers": [{}, {}]}, "1", "damaged: layer #1 has no graph"),
    ({"schema": 1, "layers": ["x"]}, "0", "damaged: layer #0 has no graph"),
    ({"schema": 1, "layers": [{"graph": {"schema": 1, "nodes": [["soft", [0]]]}}]}, "0",
     "damaged: layer #0: node 4: unknown op 'soft'"),
    ({"schema": 1, "layers": [{"graph": {"schema": 2, "nodes": [["neg", [0]]]}}]}, "0",
     "layer #0: the graph has schema 2"),
])  # fmt: skip
def test_a_bad_file_is_one_clear_line(content, number, message, tmp_path):
    path = tmp_path / "layers.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        en.norm_act(f"{path}#{number}")
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


class _Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = en.EvoNormB0(use_running_average=False)(nn.Conv(8, (3, 3))(x))
        x = en.GraphNormAct(graph=en.Graph.parse("v0 + x * v1"))(x)
        x = en.FilterResponseNorm()(nn.Conv(8, (1, 1), use_bias=False)(x))
        x = en.EvoNormS0(nonlinearity=False)(en.GroupNormAct(groups=4)(x))
        return nn.Dense(3)(x.mean((1, 2)))


class _NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(8, 8, (3, 3), rngs=rngs)
        self.norms = nnx.List([en_nnx.EvoNormB0(8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs)])
        self.graph = en_nnx.GraphNormAct(8, graph=CATALOG["evonorm_s0"], rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)


#: An optimizer that, at a gradient of 0, moves what decays and leaves all else alone.
DECAY = optax.chain(optax.add_decayed_weights(0.5, mask=en.norm_parameters), optax.sgd(1.0))


def assert_only_kernels_and_their_biases_halved(before, after):
    norms = decayed = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(before):
        *_, module, name = (str(getattr(key, "key", key)) for key in path)
        is_norm = not module.startswith(("Conv", "Dense", "conv", "head"))
        expected = leaf if is_norm else 0.5 * leaf
        value = after
        for key in path:
            value = value[key.key]
        np.testing.assert_array_equal(value, expected, err_msg=f"{module} {name}")
        norms, decayed = norms + is_norm, decayed + (not is_norm)
    assert norms and decayed


def keystr_dict(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


FORMS = {
    "FrozenDict": flax.core.freeze,
    "tuples": flatten_dict,
    "slashes": lambda params: flatten_dict(params, sep="/"),
    "dots": lambda params: flatten_dict(params, sep="."),
    "keystr": keystr_dict,
    "boxed": lambda params: jax.tree.map(lambda leaf: nn.Partitioned(leaf, (None,) * leaf.ndim), params),
    "a list of blocks": lambda params: [{"block": params}, params],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_mask_is_the_same_in_every_form_of_the_parameters(form):
    params = jax.eval_shape(_Net().init, jax.random.key(0), X)["params"]
    other = form(params)
    mask = en.norm_parameters(other)
    assert jax.tree.structure(mask) == jax.tree.structure(other)
    ours = {id(leaf): decays for leaf, decays in zip(*map(jax.tree.leaves, (other, mask)), strict=True)}
    assert set(ours.values()) == {True, False}
    expected = zip(*map(jax.tree.leaves, (params, en.norm_parameters(params))), strict=True)
    assert all(ours[id(leaf)] == decays for leaf, decays in expected)


def test_the_mask_of_an_nnx_model_is_the_same_as_pure_and_as_flat_dict():
    state = nnx.state(_NnxNet(nnx.Rngs(0)), nnx.Param)
    mask = nnx.to_pure_dict(en.norm_parameters(state))
    assert en.norm_parameters(nnx.to_pure_dict(state)) == mask
    assert en.norm_parameters(flatten_dict(nnx.to_pure_dict(state))) == flatten_dict(mask)


@pytest.mark.parametrize(("params", "message"), [
    ([1.0, 2.0], r"by the names of its parameters, \[0\] has none"),
    (1.0, "by the names of its parameters, the only array has none"),
    (nnx.to_flat_state(nnx.state(en_nnx.EvoNormB0(8, rngs=nnx.Rngs(0)))), "by the names of .* has none"),
    ({"Dense_0_kernel": 1.0, "BatchNorm_0_scale": 1.0},
     "cannot tell module from parameter in 'BatchNorm_0_scale': flatten with sep='/'"),
])  # fmt: skip
def test_parameters_without_names_are_refused_and_never_decayed_all(params, message):
    with pytest.raises(ValueError, match=message) as error:
        en.norm_parameters(params)
    assert "\n" not in str(error.value)


def test_weight_decay_spares_the_norms_of_a_linen_model():
    shapes = jax.eval_shape(_Net().init, jax.random.key(0), X)["params"]
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    updates, _ = DECAY.update(jax.tree.map(jnp.zeros_like, params), DECAY.init(params), params)
    assert_only_kernels_and_their_biases_halved(params, optax.apply_updates(params, updates))
    assert not any(jax.tree.leaves(en.norm_parameters({"scale": 1, "bias": 2, "v": 3, "tau": 4})))


def test_weight_decay_spares_the_norms_of_an_nnx_model():
    model = _NnxNet(nnx.Rngs(0))
    state = jax.tree.map(lambda p: p + 1.0, nnx.state(model, nnx.Param))
    nnx.update(model, state)
    mask = en.norm_parameters(state)
    assert jax.tree.structure(mask) == jax.tree.structure(state)
    assert not any(jax.tree.leaves((mask["norms"], mask["graph"])))
    assert all(jax.tree.leaves((mask["conv"], mask["head"])))
    before = nnx.to_pure_dict(jax.tree.map(np.array, state))
    optimizer = nnx.Optimizer(model, DECAY, wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.zeros_like, state))
    assert_only_kernels_and_their_biases_halved(before, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
