"""Meshes with Explicit axes, JAX's default: every layer on 8 devices equals the layer on one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from evonorms_jax.layers import norm_act

# x of rank 3 and 4 with the batch, steps of a sequence, rows or channels on the axes d (4) and m (2).
IMAGES, SEQUENCES = (8, 4, 2, 16), (8, 4, 16)
PLACES = {
    "batch": (SEQUENCES, ("d", None, None)),
    "batch and steps": (SEQUENCES, ("d", "m", None)),
    "steps": (SEQUENCES, (None, "d", None)),
    "batch and rows": (IMAGES, ("d", "m", None, None)),
    "batch over both axes": (IMAGES, (("d", "m"), None, None, None)),
}
CHANNELS = {
    "batch and channels": (IMAGES, ("d", None, None, "m")),
    "steps and channels": (SEQUENCES, (None, "d", "m")),
}
LAYERS = ["evonorm_b0", "evonorm_b1", "evonorm_s0", "evonorm_s2", "frn_tlu", "bn_relu", "gn_relu"]
CASES = [(name, place) for name in LAYERS for place in PLACES]
# Flax's GroupNorm refuses channels on a mesh; the groups of ours lie within a shard.
CASES += [(name, place) for name in LAYERS if name != "gn_relu" for place in CHANNELS]


@functools.cache
def step(name):
    """A jitted training step: loss, output, new statistics, gradients of the parameters and x."""
    layer = norm_act(name, use_running_average=False, groups=4)()

    @jax.jit
    def run(variables, x, mask):
        stats = {key: value for key, value in variables.items() if key != "params"}

        def loss(params, x):
            y, new = layer.apply({"params": params, **stats}, x, mask=mask, mutable=["batch_stats"])
            return jnp.mean(jnp.sin(3 * y)), (y, new)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(variables["params"], x)

    return layer, run


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("name", "place"), CASES)
def test_values_and_gradients_equal_those_of_one_device(name, place, masked, rng):
    shape, spec = (PLACES | CHANNELS)[place]
    layer, run = step(name)
    x = rng.normal(0.3, 1, shape).astype(np.float32)
    mask = rng.random(shape[:-1]) < 0.7 if masked else None
    variables = layer.init(jax.random.key(0), x)
    expected = jax.device_get(run(variables, x, mask))

    mesh = jax.make_mesh((4, 2), ("d", "m"))
    assert all(kind == jax.sharding.AxisType.Explicit for kind in mesh.axis_types)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
        if masked:
            mask = jax.device_put(mask, NamedSharding(mesh, PartitionSpec(*spec[:-1])))
        actual = run(variables, sharded, mask)
        (_, (y, _)), (_, of_x) = actual
        assert y.sharding.spec == of_x.sharding.spec == PartitionSpec(*spec)
        actual = jax.device_get(actual)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), actual, expected)
