"""The form of a layer follows the platform that a program is lowered for, whatever the host is."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from evonorms_jax.layers import norm_act
from evonorms_jax.search_space import CATALOG, compile_graph

SHAPE = (4, 6, 6, 8)


def lowered(function, *arguments, platform):
    """The text of `function` as it is handed to the compiler of a platform."""
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def training_step(name):
    """A function of x: the gradients of the parameters and of x."""
    layer = norm_act(name, use_running_average=False, groups=4)()
    variables = layer.init(jax.random.key(0), jnp.ones(SHAPE))

    def step(x):
        def loss(params, x):
            y, new = layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sum(y.astype(jnp.float32) ** 2), new

        return jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)

    return step


@pytest.mark.parametrize("name", ["evonorm_b0", "evonorm_s0", "frn_tlu"])
def test_recomputation_has_a_barrier_everywhere_but_on_a_tpu(name):
    """On a TPU a barrier prevents fusion, on a CPU the lack of one makes XLA keep the forward values."""
    x = jax.ShapeDtypeStruct(SHAPE, jnp.bfloat16)
    for platform, expected in (("tpu", False), ("cpu", True), ("cuda", True)):
        text = lowered(training_step(name), x, platform=platform)
        assert ("optimization_barrier" in text) == expected, platform


@pytest.mark.parametrize("name", CATALOG)
def test_only_a_bfloat16_input_on_a_tpu_is_summed_without_a_pivot(name):
    layer = compile_graph(CATALOG[name], groups=4)
    params, stats = layer.init(8)

    def pivot_is_0(dtype, platform):
        x = jax.ShapeDtypeStruct(SHAPE, dtype)
        text = lowered(lambda x: layer.apply(params, stats, x, train=True), x, platform=platform)
        return re.search(r'case"\(%\d+\) \(\{\s+%\w+ = stablehlo.constant dense<0.0+e\+00>', text) is not None

    assert pivot_is_0(jnp.bfloat16, "tpu") == ("std" in str(CATALOG[name]))
    assert not pivot_is_0(jnp.float32, "tpu") and not pivot_is_0(jnp.float16, "tpu")
    assert not pivot_is_0(jnp.bfloat16, "cpu") and not pivot_is_0(jnp.bfloat16, "cuda")


@pytest.mark.parametrize("masked", [False, True])
def test_a_bfloat16_step_is_traced_inside_shard_map(masked):
    """All branches of a choice by platform must have the same varying axes there."""
    layer = compile_graph(CATALOG["evonorm_b0"], groups=4, axis_name="devices")
    params, stats = layer.init(8)

    def step(x, mask):
        def loss(params, x):
            y, new = layer.apply(params, stats, x, train=True, mask=mask if masked else None)
            return jnp.sum(y.astype(jnp.float32) ** 2), new

        gradients, new = jax.grad(loss, (0, 1), has_aux=True)(params, x)
        return gradients[1], jax.tree.map(lambda leaf: leaf[None], new)

    mesh, rows = Mesh(np.array(jax.devices()), ("devices",)), PartitionSpec("devices")
    mapped = jax.shard_map(step, mesh=mesh, in_specs=rows, out_specs=rows)
    shapes = jax.ShapeDtypeStruct((8, 4, 2, 8), jnp.bfloat16), jax.ShapeDtypeStruct((8, 4, 2), bool)
    of_x, new = jax.eval_shape(mapped, *shapes)
    assert of_x.dtype == jnp.bfloat16 and new["var"].shape == (8, 8)
