"""Layers, constructors and graphs as another process or a copy gets them: equal, and with the same output."""

import copy
import pickle

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from support.layer_oracle import SHAPE

import evonorms_jax as en
from evonorms_jax import nnx as en_nnx
from evonorms_jax.layers import LAYERS
from evonorms_jax.search_space import CATALOG, random_graph

COPIES = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "cloudpickle": lambda value: pickle.loads(cloudpickle.dumps(value)),
    "deepcopy": copy.deepcopy,
}
every_copy = pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)


@every_copy
@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_constructors_survive(name, copied):
    constructor = en.norm_act(name, groups=3, dtype=jnp.bfloat16)
    for value in (constructor, constructor(), constructor.affine(use_running_average=True)):
        again = copied(value)
        assert again == value and hash(again) == hash(value)
    assert copied(constructor)(epsilon=2e-3) == constructor(epsilon=2e-3) != constructor()
    assert copied(constructor) != en.norm_act(name, groups=4, dtype=jnp.bfloat16)


@every_copy
@pytest.mark.parametrize(
    "activation",
    [nn.relu, nn.silu, nn.gelu, jnp.tanh, nn.hard_swish],
    ids=["relu", "silu", "gelu", "tanh", "hard_swish"],
)
def test_an_activation_of_jax_survives(activation, copied):
    """Most of JAX's activations are jitted functions, and pickle takes none of those."""
    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
    for layer in (en.InstanceNormAct(activation=activation), en.norm_act("in_relu", activation=activation)()):
        again = copied(layer)
        assert again == layer != en.InstanceNormAct(activation=nn.sigmoid)
        y, variables = again.init_with_output(jax.random.key(0), x)
        norm = nn.InstanceNorm(epsilon=1e-5).apply({"params": variables["params"]["norm"]}, x)
        np.testing.assert_allclose(y, activation(norm), rtol=1e-6)


@every_copy
def test_graphs_and_their_layers_survive(copied, rng):
    for graph in [*CATALOG.values(), *(random_graph(rng) for _ in range(5))]:
        for value in (graph, en.GraphNormAct(graph=graph), en.norm_act(graph, group_size=8)):
            again = copied(value)
            assert again == value and hash(again) == hash(value)
        assert copied(graph).canonical == graph.canonical and str(copied(graph)) == str(graph)


@every_copy
@pytest.mark.parametrize("name", ["EvoNormB0", "EvoNormS1", "GraphNormAct", "PixelNormAct", "DynamicErf"])
def test_nnx_layers_survive_with_their_variables(name, copied, rng):
    fields = {"graph": CATALOG["evonorm_b1"]} if name == "GraphNormAct" else {}
    layer = getattr(en_nnx, name)(SHAPE[-1], rngs=nnx.Rngs(0), **fields)
    x = rng.normal(1, 2, SHAPE).astype(np.float32)
    layer(x)
    again = copied(layer)
    (structure, state), (other, copy_of_state) = nnx.split(layer), nnx.split(again)
    assert structure == other
    jax.tree.map(np.testing.assert_array_equal, copy_of_state, state)
    layer.eval(), again.eval()
    np.testing.assert_array_equal(again(x), layer(x))
