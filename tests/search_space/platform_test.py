"""The form of a layer follows the platform that a program is lowered for, whatever the host is."""

import re

import jax
import jax.numpy as jnp
import pytest

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
