"""Meshes with Explicit axes, JAX's default: every layer on 8 devices equals the layer on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from evonorms_jax.layers import norm_act

# x of rank 3 and 4 with the batch, steps of a sequence, rows or channels on the axes d (4) and m (2).
IMAGES, SEQUENCES = (8, 4, 2, 16), (8, 4, 16)
PLACES = {
    "batch": (IMAGES, (("d", "m"), None, None, None)),
    "batch and steps": (SEQUENCES, ("d", "m", None)),
    "batch and rows": (IMAGES, ("d", "m", None, None)),
    "batch and channels": (IMAGES, ("d", None, None, "m")),
    "steps and channels": (SEQUENCES, (None, "d", "m")),
}
CASES = [(name, place) for name in ("evonorm_b0", "evonorm_s0") for place in PLACES]
CASES += [(name, "batch and channels") for name in ("evonorm_b2", "evonorm_s2", "frn_tlu")]
CASES += [("frn_tlu", "batch and steps")]
# Flax's GroupNorm refuses channels on a mesh. The groups of the EvoNorms lie within a shard here.
CASES += [("bn_relu", "batch and steps"), ("gn_relu", "batch and steps")]


@pytest.mark.parametrize(("name", "place"), CASES)
def test_values_and_gradients_equal_those_of_one_device(name, place, rng):
    """With and without a mask: loss, output, statistics, and the gradients of the parameters and of x."""
    shape, spec = PLACES[place]
    layer = norm_act(name, use_running_average=False, groups=4)()
    x = rng.normal(0.3, 1, shape).astype(np.float32)
    mask = rng.random(shape[:-1]) < 0.7
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    stats = {key: value for key, value in variables.items() if key != "params"}

    @jax.jit
    def results(params, x, mask):
        def loss(params, x, mask):
            y, new = layer.apply({"params": params, **stats}, x, mask=mask, mutable=["batch_stats"])
            return jnp.mean(jnp.sin(3 * y)), (y, new)

        step = jax.value_and_grad(loss, (0, 1), has_aux=True)
        return step(params, x, mask), step(params, x, None)

    expected = jax.device_get(results(variables["params"], x, mask))
    mesh = jax.make_mesh((4, 2), ("d", "m"))
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Explicit}
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
        sharded_mask = jax.device_put(mask, NamedSharding(mesh, PartitionSpec(*spec[:-1])))
        actual = results(variables["params"], sharded, sharded_mask)
        for (_, (y, _)), (_, of_x) in actual:
            assert y.sharding.spec == of_x.sharding.spec == PartitionSpec(*spec)
        actual = jax.device_get(actual)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), actual, expected)
