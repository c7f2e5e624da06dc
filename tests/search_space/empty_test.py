"""Arrays with an axis of size 0: an empty output, unchanged statistics, finite gradients."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx as flax_nnx

from evonorms_jax.layers import LAYERS, nnx, norm_act
from evonorms_jax.layers.universal import UniversalNormAct
from evonorms_jax.search_space import CATALOG, Graph, compile_graph
from evonorms_jax.search_space.encoding import encode
from evonorms_jax.search_space.moments import INDEX_SETS, Moments

SHAPES = [(0, 3, 2, 8), (2, 0, 2, 8), (2, 3, 0, 8), (0, 3, 8), (2, 0, 8)]
# A constant's moments over the batch know its value even where the batch has no element.
GRAPHS = {**CATALOG, "constant": Graph.parse("x / std_bwh(v0) + mean_bwh(v1) * rms_bwh(x)")}


def check(apply, params, stats, masks=(False, True)):
    """`apply(params, stats, x, train[, mask]) -> (y, stats)` on empty arrays, as one program."""

    @jax.jit
    def results(params):
        found = []
        for shape, train, masked in itertools.product(SHAPES, (True, False), masks):
            options = {"mask": jnp.ones(shape[:-1], bool)} if masked else {}

            def loss(params, x, train=train, options=options):
                y, new = apply(params, stats, x, train=train, **options)
                return jnp.sum(y), (y, new)

            found.append((shape, jax.grad(loss, (0, 1), has_aux=True)(params, jnp.zeros(shape))))
        return found

    for shape, (gradients, (y, after)) in results(params):
        assert y.shape == gradients[1].shape == tuple(map(int, shape))
        jax.tree.map(np.testing.assert_array_equal, after, stats)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", GRAPHS)
def test_compiled_graphs(name):
    layer = compile_graph(GRAPHS[name], groups=4)
    check(layer.apply, *layer.init(8))


@pytest.mark.parametrize(
    "name", ["evonorm_b0", "evonorm_s0", "bn_relu", "gn_relu", "ln_relu", "in_relu", "frn_tlu", "pn_relu"]
)
def test_linen_layers(name):
    layer = norm_act(name)()
    init = jax.jit(functools.partial(layer.init, use_running_average=False))
    variables = init(jax.random.key(0), jnp.ones((2, 3, 2, 8)))
    jax.tree.map(np.testing.assert_array_equal, init(jax.random.key(0), jnp.zeros((0, 3, 2, 8))), variables)

    def apply(params, stats, x, *, train, mask=None):
        y, new = layer.apply({"params": params, **stats}, x, not train, mask, mutable=["batch_stats"])
        return y, dict(new) or stats

    check(apply, variables["params"], {key: value for key, value in variables.items() if key != "params"})


def test_every_named_layer_has_an_empty_output_for_an_empty_batch():
    for name in LAYERS:
        layer = norm_act(name, use_running_average=False)()
        shapes = jax.eval_shape(layer.init_with_output, jax.random.key(0), jnp.zeros((0, 3, 2, 8)))
        assert shapes[0].shape == (0, 3, 2, 8), name


@pytest.mark.parametrize("name", ["EvoNormB1", "EvoNormS2"])
def test_nnx_layers(name):
    layer = getattr(nnx, name)(8, rngs=flax_nnx.Rngs(0))
    definition, params, stats = flax_nnx.split(layer, flax_nnx.Param, ...)

    def apply(params, stats, x, *, train, mask=None):
        layer = flax_nnx.merge(definition, params, stats, copy=True)
        y = layer(x, not train, mask)
        return y, flax_nnx.split(layer, flax_nnx.Param, ...)[2]

    check(apply, params, stats)


@pytest.mark.parametrize("interpreted", [True, False])
def test_the_layer_of_a_search(interpreted):
    graph = CATALOG["evonorm_b0"]
    layer = UniversalNormAct(candidate=encode(graph) if interpreted else graph)
    variables = layer.init(jax.random.key(0), jnp.zeros((0, 3, 2, 8)), use_running_average=False)

    def apply(params, stats, x, *, train):
        return layer.apply({"params": params, **stats}, x, not train, mutable=["batch_stats"])

    check(apply, variables["params"], {"batch_stats": variables["batch_stats"]}, masks=(False,))


@pytest.mark.parametrize("masked", [False, True])
def test_moments_over_no_element_are_0(masked):
    @jax.jit
    def every_moment():
        tensors = [
            Moments(jnp.zeros(shape), mask=jnp.zeros((*shape[:-1], 1), bool) if masked else None, groups=4)
            for shape in SHAPES
        ]
        kinds = ("mean", "mean_square", "variance")
        return [getattr(moments, kind)(name) for moments in tensors for kind in kinds for name in INDEX_SETS]

    assert all((np.asarray(value) == 0).all() for value in every_moment())
