"""The NNX layers: equal to the Linen ones, and at home among NNX's own modules."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.layer_oracle import SHAPE, SIX, assert_close, oracle, ragged_mask, variables_of

import evonorms_jax as en
from evonorms_jax import nnx as en_nnx

TWINS = {name: getattr(en_nnx, linen.__name__) for name, linen in SIX.items()}


def twin_of(name, variables, channels=SHAPE[-1], **fields):
    """The NNX layer with the parameters and statistics of a Linen one."""
    layer = TWINS[name](channels, rngs=nnx.Rngs(0), **fields)
    for collection in variables.values():
        for key, value in collection.items():
            getattr(layer, key)[...] = jnp.asarray(value)
    return layer


@pytest.mark.parametrize(
    ("name", "masked"), [*((name, False) for name in SIX), ("evonorm_b0", True), ("evonorm_s0", True)]
)
def test_equals_the_linen_twin_and_the_oracle(name, masked, rng):
    """Output, gradients and moving statistics in training, then the output of inference."""
    x = rng.normal(0.3, 2, SHAPE).astype(np.float32)
    mask = ragged_mask(len(x)) if masked else None
    variables = variables_of(name, rng)
    fields = {"groups": 4, "momentum": 0.8}
    linen, layer = SIX[name](**fields), twin_of(name, variables, **fields)

    def linen_loss(params, x):
        y, updates = linen.apply(
            {**variables, "params": params}, x, use_running_average=False, mask=mask, mutable=["batch_stats"]
        )
        return jnp.sum(y**3), (y, updates)

    linen_step = jax.jit(jax.grad(linen_loss, (0, 1), has_aux=True))
    gradients, (y, updates) = linen_step(variables["params"], x)

    def loss(layer, x):
        y = layer(x, mask=mask)
        return jnp.sum(y**3), y

    ours, our_y = nnx.jit(nnx.grad(loss, argnums=(0, 1), has_aux=True))(layer, x)
    assert_close(our_y, y, 1e-6)
    assert_close(our_y, oracle(name, variables["params"], x, mask))
    assert_close(ours[1], gradients[1], 1e-6)
    assert set(ours[0]) == set(gradients[0])
    for key, gradient in gradients[0].items():
        assert_close(ours[0][key][...], gradient, 1e-6)
    layer.eval()
    stats = updates.get("batch_stats", {})
    if stats:
        assert_close(layer.var[...], stats["var"], 1e-6)
    y = nnx.jit(lambda layer, x: layer(x, mask=mask))(layer, x)
    assert_close(y, oracle(name, variables["params"], x, mask, var=stats.get("var")))


def test_moving_variance_equals_that_of_nnx_batch_norm(rng):
    layers = [layer(5, momentum=0.7, rngs=nnx.Rngs(0)) for layer in (en_nnx.EvoNormB0, nnx.BatchNorm)]
    for _ in range(2):
        x = rng.normal(1, 3, (2, 3, 5)).astype(np.float32)
        for layer in layers:
            layer(x)
    np.testing.assert_allclose(*(layer.var[...] for layer in layers), rtol=1e-5)


class _Net(nnx.Module):
    def __init__(self, norm, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm = norm(8, rngs=rngs)
        self.head = nnx.Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.norm(self.conv(x)).mean((1, 2)))


@pytest.mark.parametrize("norm", [nnx.BatchNorm, en_nnx.EvoNormB0, en_nnx.EvoNormS0])
def test_drops_in_for_batch_norm(norm, rng):
    """`train`, `eval` and `nnx.view` reach the layer, jitted steps advance its statistics, compiled once."""
    x = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    net = _Net(norm, nnx.Rngs(0))
    traces = []

    @nnx.jit
    def forward(net, x):
        traces.append(net.norm.use_running_average)
        return net(x)

    def statistics():
        return [np.array(leaf) for leaf in jax.tree.leaves(nnx.state(net, nnx.BatchStat))]

    history = [statistics()]
    for _ in range(2):
        forward(net, x)
        history.append(statistics())
    for before, after in itertools.pairwise(history):
        assert all((a != b).all() for a, b in zip(before, after, strict=True))
    assert traces == [False]
    in_view = nnx.view(net, use_running_average=True)(x)
    net.eval()
    np.testing.assert_allclose(forward(net, x), in_view, rtol=1e-5)
    assert traces == [False, True]
    jax.tree.map(np.testing.assert_array_equal, statistics(), history[-1])
    net.train()
    forward(net, x)
    assert traces == [False, True]


def test_the_mode_of_the_call_wins_and_one_must_be_given():
    x = jnp.full(SHAPE, 3.0)
    layer = en_nnx.EvoNormB0(12, use_running_average=True, rngs=nnx.Rngs(0))
    layer(x)
    np.testing.assert_array_equal(layer.var[...], 1)
    layer(x, use_running_average=False)
    np.testing.assert_allclose(layer.var[...], 0.9)
    layer.use_running_average = None
    with pytest.raises(ValueError, match="use_running_average must be given"):
        layer(x)


def test_graph_norm_act_equals_its_linen_twin(rng):
    graph = en.Graph.parse("v0 + v1 * x / (std_bwh(x) + std_bwh(sigmoid(x)) + rms_bwh(x)) + mean_bwh(x)")
    x = rng.normal(1, 3, SHAPE).astype(np.float32)
    linen = en.GraphNormAct(graph=graph, use_running_average=False)
    layer = en_nnx.GraphNormAct(12, graph=graph, rngs=nnx.Rngs(0))
    variables = linen.init(jax.random.key(0), x)
    assert set(nnx.state(layer, nnx.Param)) == set(variables["params"]) == {"scale", "bias", "v0", "v1"}
    assert set(nnx.state(layer, nnx.BatchStat)) == set(variables["batch_stats"])
    y, updates = linen.apply(variables, x, mutable=["batch_stats"])
    assert_close(layer(x), y, 1e-6)
    for name, value in updates["batch_stats"].items():
        assert_close(getattr(layer, name)[...], value, 1e-6)


def test_affine_fields_and_dtypes(rng):
    x = jnp.asarray(rng.normal(size=SHAPE), jnp.bfloat16)
    fields = {
        "use_bias": False,
        "scale_init": nnx.initializers.zeros,
        "dtype": jnp.bfloat16,
        "param_dtype": jnp.bfloat16,
        "rngs": nnx.Rngs(0),
    }
    layer = en_nnx.EvoNormB0(12, **fields)
    assert set(nnx.state(layer, nnx.Param)) == {"scale", "v"}
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param))} == {jnp.dtype("bfloat16")}
    assert layer.var[...].dtype == jnp.float32
    y = layer(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, 0)
    affine = en_nnx.EvoNormB0(12, nonlinearity=False, rngs=nnx.Rngs(0))
    assert set(nnx.state(affine)) == {"scale", "bias"}
    np.testing.assert_array_equal(affine(x), x)
    assert affine(x).dtype == jnp.float32  # the parameters', as in Flax


@pytest.mark.parametrize("name", ["EvoNormB0", "EvoNormS0", "GraphNormAct"])
def test_every_parameter_starts_and_is_partitioned_by_its_initializer(name):
    leaves = ("scale", "bias", "v0", "v1") if name == "GraphNormAct" else ("scale", "bias", "v")
    starts = {leaf: float(number + 2) for number, leaf in enumerate(leaves)}
    fields = {
        f"{leaf}_init": nnx.with_partitioning(nnx.initializers.constant(start), ("features",))
        for leaf, start in starts.items()
    }
    if name == "GraphNormAct":
        fields["graph"] = en.Graph.parse("max(v0, v1 * x / std_bwh(x))")
    mesh = jax.make_mesh((2,), ("features",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        layer = getattr(en_nnx, name)(12, rngs=nnx.Rngs(0), **fields)
    params = nnx.state(layer, nnx.Param)
    specs = nnx.to_pure_dict(nnx.get_partition_spec(params))
    assert specs == {leaf: jax.sharding.PartitionSpec("features") for leaf in starts}
    for leaf, start in starts.items():
        np.testing.assert_array_equal(params[leaf][...], np.full(12, start))


@pytest.mark.parametrize("name", ["EvoNormB1", "EvoNormB2", "EvoNormS1", "EvoNormS2"])
def test_an_initializer_of_a_parameter_that_a_layer_lacks_is_refused(name):
    with pytest.raises(TypeError, match="unexpected keyword argument 'v_init'"):
        getattr(en_nnx, name)(12, v_init=nnx.initializers.ones, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("x, message", [
    (np.ones((2, 3), np.float32), r"rank 3 or more, got shape \(2, 3\)"),
    (np.ones((2, 3, 12), np.int32), "must be floating point, got dtype int32"),
    (np.ones((2, 3, 4), np.float32), r"num_features=12 channels, got shape \(2, 3, 4\)"),
])  # fmt: skip
def test_wrong_input_is_one_clear_line(x, message):
    with pytest.raises(ValueError, match=message):
        en_nnx.EvoNormB0(12, rngs=nnx.Rngs(0))(x)


def test_wrong_groups_are_refused_when_the_layer_is_made():
    with pytest.raises(ValueError, match="groups must be at least 1, got 0"):
        en_nnx.EvoNormS0(12, groups=0, rngs=nnx.Rngs(0))


def test_statistics_over_eight_devices_are_those_of_the_whole_batch(rng):
    """Each device runs its own copy of the layer, under `pmap`."""
    x = rng.normal(0.3, 2, (8, 2, *SHAPE[1:])).astype(np.float32)

    def step(x, axis_name):
        layer = en_nnx.EvoNormB0(12, axis_name=axis_name, rngs=nnx.Rngs(0))
        return layer(x), layer.var[...]

    y, var = jax.pmap(lambda x: step(x, "devices"), axis_name="devices")(x)
    whole_y, whole_var = step(x.reshape(16, *SHAPE[1:]), None)
    assert_close(np.reshape(y, whole_y.shape), whole_y)
    for one in var:
        assert_close(one, whole_var)
