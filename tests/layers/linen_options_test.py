"""The fields of the Linen layers: precision, groups, devices, shapes, memory, and wrong input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec
from support.layer_oracle import SHAPE, SIX, assert_close, oracle, ragged_mask, variables_of

import evonorms_jax as en

six = pytest.mark.parametrize("name", SIX)
two = pytest.mark.parametrize("name", ["evonorm_b0", "evonorm_s0"])


def train(layer, variables, x, mask=None):
    """(output, new moving variance or None) of one training step."""
    y, updates = jax.jit(
        lambda variables, x, mask: layer.apply(
            variables, x, use_running_average=False, mask=mask, mutable=["batch_stats"]
        )
    )(variables, x, mask)
    return y, updates.get("batch_stats", {}).get("var")


@six
def test_without_its_nonlinearity_only_the_affine_is_left(name, rng):
    x = rng.normal(size=SHAPE).astype(np.float32)
    mask = ragged_mask(len(x))
    layer = SIX[name](nonlinearity=False)
    variables = layer.init(jax.random.key(0), x)
    assert set(variables) == {"params"}
    assert set(variables["params"]) == {"scale", "bias"}
    params = {"scale": np.float32(rng.normal(size=12)), "bias": np.float32(rng.normal(size=12))}
    y = layer.apply({"params": params}, x, mask=mask)
    assert_close(y, np.where(mask[..., None], x * params["scale"] + params["bias"], 0))
    jaxpr = str(jax.make_jaxpr(lambda x: layer.apply({"params": params}, x))(x))
    assert not any(op in jaxpr for op in (" div ", " reduce_sum", "sqrt"))


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("param_dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("x_dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_dtypes_are_those_of_batch_norm(dtype, param_dtype, x_dtype):
    def types(layer, **fields):
        layer = layer(use_running_average=False, dtype=dtype, param_dtype=param_dtype, **fields)
        y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), jnp.ones(SHAPE, x_dtype))
        stats = variables.get("batch_stats", {"var": jnp.ones(1)})
        return y.dtype, {leaf.dtype for leaf in variables["params"].values()}, stats["var"].dtype

    expected = types(nn.BatchNorm)
    assert types(en.EvoNormB0) == types(en.EvoNormS0) == types(en.EvoNormB0, nonlinearity=False) == expected
    assert types(en.FilterResponseNorm) == expected


@six
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_loses_only_the_rounding_of_the_output(name, dtype, rng):
    """Moments are float32: squares of 1e3 leave float16, sums over 4096 positions lose bfloat16's digits."""
    x = jnp.asarray(300 + 1e3 * rng.normal(size=(2, 64, 64, 4)), dtype)
    variables = variables_of(name, rng, 4)
    y, var = train(SIX[name](groups=2, dtype=dtype), variables, x)
    assert y.dtype == dtype
    rounding = float(jnp.finfo(dtype).eps)
    assert_close(y, oracle(name, variables["params"], x, groups=2), rounding)
    if var is not None:
        batch = np.asarray(x, np.float64).var((0, 1, 2))
        assert_close(var, 0.9 * variables["batch_stats"]["var"] + 0.1 * batch, 1e-5)


@six
def test_a_large_mean_does_not_swallow_the_variance(name, rng):
    """Mean 1e4, deviation 1: E[x^2] - E[x]^2 in float32 would be off by 8, and could be negative."""
    x = (1e4 + rng.normal(size=SHAPE)).astype(np.float32)
    variables = variables_of(name, rng)
    y, var = train(SIX[name](groups=4), variables, x)
    if name != "evonorm_b2":  # rms(x) - x cancels to a few digits in any float32
        assert_close(y, oracle(name, variables["params"], x), 1e-4)
    if var is not None:
        batch = x.astype(np.float64).var((0, 1, 2))
        assert_close(var, 0.9 * variables["batch_stats"]["var"] + 0.1 * batch, 1e-4)


@six
def test_epsilon_is_that_of_the_paper(name, rng):
    """At deviation 1e-3 the epsilon decides the output."""
    x = (1e-3 * rng.normal(size=SHAPE)).astype(np.float32)
    variables = variables_of(name, rng)
    y, _ = train(SIX[name](groups=4), variables, x)
    assert_close(y, oracle(name, variables["params"], x, epsilon=1e-5))
    y, _ = train(SIX[name](groups=4, epsilon=1e-3), variables, x)
    assert_close(y, oracle(name, variables["params"], x, epsilon=1e-3))


@two
def test_affine_fields(name, rng):
    x = rng.normal(size=SHAPE).astype(np.float32)
    layer = SIX[name](use_scale=False, use_bias=False)
    variables = layer.init(jax.random.key(0), x, use_running_average=True)
    assert set(variables["params"]) == {"v"}
    assert_close(train(layer, variables, x)[0], oracle(name, {}, x, groups=32))
    layer = SIX[name](
        scale_init=nn.initializers.zeros, bias_init=nn.initializers.constant(2.0), use_running_average=False
    )
    y, _ = jax.jit(layer.init_with_output)(jax.random.key(0), x)
    np.testing.assert_array_equal(y, 2)


NAMED = {
    "evonorm_b0": ("scale", "bias", "v"),
    "evonorm_s0": ("scale", "bias", "v"),
    "evonorm_b2": ("scale", "bias"),
    "frn_tlu": ("scale", "bias", "tau"),
    "bn_relu": ("scale", "bias"),
    "graph": ("scale", "bias", "v0", "v1"),
}
GRAPH = en.Graph.parse("max(v0, v1 * x / std_bwh(x))")


@pytest.mark.parametrize("name", NAMED)
def test_every_parameter_starts_and_is_partitioned_by_its_initializer(name):
    starts = {leaf: float(number + 2) for number, leaf in enumerate(NAMED[name])}
    fields = {
        f"{leaf}_init": nn.with_partitioning(nn.initializers.constant(start), ("features",))
        for leaf, start in starts.items()
    }
    constructor = en.norm_act(GRAPH if name == "graph" else name, use_running_average=False, **fields)
    layer = constructor(param_dtype=jnp.bfloat16)
    variables = layer.init(jax.random.key(0), jnp.ones(SHAPE))
    specs = nn.get_partition_spec(variables)["params"]
    params = nn.unbox(variables["params"])
    if name == "bn_relu":
        specs, params = specs["norm"], params["norm"]
    assert specs == {leaf: PartitionSpec("features") for leaf in starts}
    for leaf, start in starts.items():
        assert params[leaf].dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(params[leaf], np.float32), np.full(SHAPE[-1], start))
    # Boxed parameters are applied like plain ones.
    x = jnp.linspace(-2, 3, np.prod(SHAPE)).reshape(SHAPE)
    boxed, plain = (layer.apply(v, x, mutable=["batch_stats"])[0] for v in (variables, nn.unbox(variables)))
    np.testing.assert_array_equal(boxed, plain)


@pytest.mark.parametrize("layer", [en.EvoNormB1, en.EvoNormB2, en.EvoNormS1, en.EvoNormS2, en.BatchNormAct])
def test_an_initializer_of_a_parameter_that_a_layer_lacks_is_refused(layer):
    with pytest.raises(TypeError, match="unexpected keyword argument 'v_init'"):
        layer(v_init=nn.initializers.ones)


@pytest.mark.parametrize("channels, fields, groups", [
    (1, {}, 1),
    (17, {}, 17),
    (48, {}, 24),
    (12, {"groups": 5}, 4),
    (12, {"group_size": 4}, 3),
    (12, {"group_size": 100}, 1),
    (12, {"group_size": 4, "groups": 12}, 3),
])  # fmt: skip
def test_groups(channels, fields, groups, rng):
    x = rng.normal(0.5, 2, (2, 3, 4, channels)).astype(np.float32)
    grouped = x.astype(np.float64).reshape(2, 12, groups, -1)
    deviation = np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-5)
    expected = (grouped / deviation).reshape(x.shape) / (1 + np.exp(-x.astype(np.float64)))
    y, _ = jax.jit(en.EvoNormS0(**fields).init_with_output)(jax.random.key(0), x)
    assert_close(y, expected)


@two
@pytest.mark.parametrize("space", [(12,), (4, 3), (2, 3, 2)])
def test_any_number_of_spatial_axes(name, space, rng):
    x = rng.normal(size=(2, 12, 1, 6)).astype(np.float32)
    variables = variables_of(name, rng, 6)
    expected, var = train(SIX[name](), variables, x)
    y, new_var = train(SIX[name](), variables, x.reshape(2, *space, 6))
    assert_close(np.reshape(y, x.shape), expected)
    assert var is None or np.allclose(var, new_var)


@pytest.mark.parametrize("masked", [False, True])
@two
def test_statistics_over_eight_devices_are_those_of_the_whole_batch(name, masked, rng):
    """Values, moving statistics and gradients; with masks, each device has another number of real places."""
    x = rng.normal(0.3, 2, (16, *SHAPE[1:])).astype(np.float32)
    weights = rng.normal(size=x.shape).astype(np.float32)
    mask = ragged_mask(16) if masked else np.ones(x.shape[:-1], bool)
    variables = variables_of(name, rng)
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))
    batch, whole = PartitionSpec("devices"), PartitionSpec()

    def step(params, x, mask, axis_name=None):
        layer = SIX[name](groups=4, axis_name=axis_name)
        return train(layer, {**variables, "params": params}, x, mask if masked else None)

    def sharded(params, x, mask):
        specs = {"in_specs": (whole, batch, batch), "out_specs": (batch, whole)}
        step_here = lambda *args: step(*args, axis_name="devices")  # noqa: E731
        return jax.shard_map(step_here, mesh=mesh, **specs)(params, x, mask)

    def with_gradient(step):
        def loss(params, x):
            y, var = step(params, x, mask)
            return jnp.vdot(y, weights), (y, var)

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(variables["params"], x)

    together, apart = with_gradient(step), with_gradient(sharded)
    jax.tree.map(lambda a, b: assert_close(b, a, 2e-5), together, apart)


def test_init_needs_no_mapped_axis():
    for layer in (en.EvoNormB0, en.BatchNormAct):
        layer = layer(axis_name="devices", use_running_average=False)
        jax.eval_shape(layer.init, jax.random.key(0), jnp.ones(SHAPE))


@six
@pytest.mark.parametrize("nonlinearity, masked", [(True, False), (True, True), (False, True)])
def test_backward_keeps_one_activation_in_its_own_dtype(name, nonlinearity, masked, rng):
    """What `vjp` closes over, affine included: x as it came (and the mask, which has no channels)."""
    x = jnp.asarray(rng.normal(size=(2, 16, 16, 32)), jnp.bfloat16)
    mask = ragged_mask(2)[:, :1, :1] if masked else None
    layer = SIX[name](dtype=jnp.bfloat16, nonlinearity=nonlinearity, groups=8)
    variables = variables_of(name, rng, 32)

    def apply(params, x):
        return train(layer, {**variables, "params": params}, x, mask)[0]

    _, backward = jax.vjp(apply, variables["params"], x)
    kept = [leaf for leaf in jax.tree.leaves(backward) if leaf.size > x.size // 32]
    assert [(leaf.shape, leaf.dtype) for leaf in kept] == [(x.shape, x.dtype)]
    np.testing.assert_array_equal(kept[0], x)


def reductions_of(function, size, *args):
    """Number of sums over `size` values or more in the traced function, in inner programs too."""

    def inner(equation):
        programs = [getattr(value, "jaxpr", value) for value in jax.tree.leaves(equation.params)]
        return [program for program in programs if hasattr(program, "eqns")]

    def count(program):
        here = [e for e in program.eqns if e.primitive.name == "reduce_sum" and e.invars[0].aval.size >= size]
        return len(here) + sum(count(p) for equation in program.eqns for p in inner(equation))

    return count(jax.make_jaxpr(function)(*args).jaxpr)


@pytest.mark.parametrize("name, forward, backward", [
    ("evonorm_b0", 2, 5),
    ("evonorm_b1", 3, 4),
    ("evonorm_b2", 3, 4),
    ("evonorm_s0", 2, 3),
    ("evonorm_s1", 2, 2),
    ("evonorm_s2", 1, 2),
])  # fmt: skip
def test_x_is_summed_only_as_often_as_the_formula_needs(name, forward, backward, rng):
    """Forward: one sum for a mean square, two for a variance, shared by both variances of B0.

    Backward: one sum for beta, gamma, v and each deviation; that of a last factor is gamma's. No moment is
    computed again.
    """
    x = rng.normal(size=SHAPE).astype(np.float32)
    variables = variables_of(name, rng)

    def apply(params, x):
        layer = SIX[name](groups=4, use_running_average=False)
        return layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])[0]

    assert reductions_of(apply, x.size, variables["params"], x) == forward
    y, cotangents = jax.vjp(apply, variables["params"], x)
    assert reductions_of(cotangents, x.size, y) == backward


@pytest.mark.parametrize("layer", [en.EvoNormB0, en.EvoNormS0, en.FilterResponseNorm, en.LayerNormAct])
@pytest.mark.parametrize("x, mask, message", [
    (np.ones((2, 3), np.float32), None, r"rank 3 or more, got shape \(2, 3\)"),
    (np.float32(1), None, r"rank 3 or more, got shape \(\)"),
    (np.ones((2, 3, 4), np.int32), None, "must be floating point, got dtype int32"),
    (np.ones((2, 3, 4), np.float32), np.ones((2, 4), bool), r"to \(2, 3\), got shape \(2, 4\)"),
    (np.ones((2, 3, 4), np.float32), np.ones((2, 3, 1), bool), r"to \(2, 3\), got shape \(2, 3, 1\)"),
    (np.ones((2, 3, 4), np.float32), np.ones((2, 3), np.int32), "mask must be boolean .* got dtype int32"),
])  # fmt: skip
def test_wrong_input_is_one_clear_line(layer, x, mask, message):
    with pytest.raises(ValueError, match=message) as error:
        layer(use_running_average=False).init(jax.random.key(0), x, mask=mask)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layer", [en.EvoNormB0, en.EvoNormS0, en.GroupNormAct])
@pytest.mark.parametrize("fields, message", [
    ({"groups": 0}, "groups must be at least 1, got 0"),
    ({"group_size": -1}, "group_size must be at least 1, got -1"),
])  # fmt: skip
def test_wrong_groups_are_one_clear_line(layer, fields, message):
    with pytest.raises(ValueError, match=message):
        layer(use_running_average=False, **fields).init(jax.random.key(0), jnp.ones(SHAPE))


def test_wrong_momentum_is_one_clear_line():
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], got 9"):
        en.EvoNormB0(use_running_average=False, momentum=9).init(jax.random.key(0), jnp.ones(SHAPE))
