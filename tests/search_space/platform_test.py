"""The form of a layer follows the platform that a program is traced for, whatever the host is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import partial_eval
from jax.sharding import Mesh, PartitionSpec

from evonorms_jax.layers import norm_act
from evonorms_jax.search_space import CATALOG, compile_graph
from evonorms_jax.search_space.target import building_for

SHAPE = (4, 6, 6, 8)


def traced(function, *arguments, platform):
    """The text of the program of `function`, built for a platform, without dead code."""
    with building_for(platform):
        jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return str(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


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
    for platform, expected in (("tpu", False), ("cpu", True), ("gpu", True)):
        text = traced(training_step(name), x, platform=platform)
        assert ("optimization_barrier" in text) == expected, platform


@pytest.mark.parametrize("name", CATALOG)
def test_only_a_bfloat16_input_on_a_tpu_is_summed_without_a_pivot(name):
    layer = compile_graph(CATALOG[name], groups=4)
    params, stats = layer.init(8)

    def pivot_is_0(dtype, platform):
        x = jax.ShapeDtypeStruct(SHAPE, dtype)
        apply = functools.partial(layer.apply, params, stats, train=True)
        return " slice[" not in traced(apply, x, platform=platform)

    assert pivot_is_0(jnp.bfloat16, "tpu")
    for dtype, platform in (("float32", "tpu"), ("float16", "tpu"), ("bfloat16", "cpu"), ("bfloat16", "gpu")):
        assert pivot_is_0(dtype, platform) == ("std" not in str(CATALOG[name]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["evonorm_b0", "evonorm_b1", "evonorm_s0"])
def test_both_forms_have_the_same_values_gradients_and_second_derivatives(name, dtype, rng):
    layer = compile_graph(CATALOG[name], groups=4)
    params, stats = layer.init(SHAPE[-1])
    x = jnp.asarray(rng.normal(0.5, 2, SHAPE), dtype)
    weights = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)

    def results(params, x, platform):
        def loss(params, x):
            y, new = layer.apply(params, stats, x, train=True, dtype=jnp.float32)
            return jnp.sum(weights * y), (y, new)

        gradients = jax.grad(loss, (0, 1), has_aux=True)
        with building_for(platform):
            return jax.jit(lambda *at: (gradients(*at), jax.jvp(gradients, at, at)[1][0]))(params, x)

    forms = [results(params, x, platform) for platform in ("cpu", "tpu")]
    for leaf, other in zip(*map(jax.tree.leaves, forms), strict=True):
        bound = (2**-7 if leaf.dtype == jnp.bfloat16 else 2e-5) * max(np.abs(other).max(), 1)
        np.testing.assert_allclose(*(np.asarray(a, np.float32) for a in (leaf, other)), atol=float(bound))


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_bfloat16_step_is_traced_inside_shard_map(masked, platform):
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
    with building_for(platform):
        of_x, new = jax.eval_shape(mapped, *shapes)
    assert of_x.dtype == jnp.bfloat16 and new["var"].shape == (8, 8)
