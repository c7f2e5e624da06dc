"""The Linen layers against the NumPy float64 oracle, and as drop-ins for Flax's BatchNorm."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from support.layer_oracle import GROUPS, SHAPE, SIX, assert_close, oracle, ragged_mask, variables_of

import evonorms_jax as en
from evonorms_jax.search_space import evaluate_reference

six = pytest.mark.parametrize("name", SIX)


@six
def test_training_equals_the_oracle_and_advances_the_statistics(name, rng):
    x = rng.normal(0.3, 2, SHAPE).astype(np.float32)
    variables = variables_of(name, rng)
    layer = SIX[name](groups=GROUPS, use_running_average=False, momentum=0.8)
    y, updates = jax.jit(lambda v, x: layer.apply(v, x, mutable=["batch_stats"]))(variables, x)
    assert_close(y, oracle(name, variables["params"], x))
    if "batch_stats" in variables:
        batch = x.astype(np.float64).var((0, 1, 2))
        assert_close(updates["batch_stats"]["var"], 0.8 * variables["batch_stats"]["var"] + 0.2 * batch)


@six
def test_inference_takes_the_moving_statistics(name, rng):
    x = rng.normal(0.3, 2, SHAPE).astype(np.float32)
    variables = variables_of(name, rng)
    y = jax.jit(SIX[name](groups=GROUPS, use_running_average=True).apply)(variables, x)
    assert_close(y, oracle(name, variables["params"], x, var=variables.get("batch_stats", {}).get("var")))


@six
def test_mask(name, rng):
    """Moments ignore what is masked, NaN included; the output there is 0; an empty image is no trouble."""
    x = rng.normal(0.3, 2, SHAPE).astype(np.float32)
    mask = ragged_mask(len(x))
    variables = variables_of(name, rng)
    poisoned = np.where(mask[..., None], x, np.nan)

    def loss(params, x):
        layer = SIX[name](groups=GROUPS, use_running_average=False)
        y, updates = layer.apply({**variables, "params": params}, x, mask=mask, mutable=["batch_stats"])
        return jnp.sum(jnp.square(y)), (y, updates)

    step = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    gradient, (y, updates) = step(variables["params"], poisoned)
    assert_close(y, oracle(name, variables["params"], x, mask))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert (np.asarray(gradient[1])[~mask] == 0).all()
    if "batch_stats" in variables:
        real = x[mask].astype(np.float64).var(0)
        assert_close(updates["batch_stats"]["var"], 0.9 * variables["batch_stats"]["var"] + 0.1 * real)


@six
def test_gradients_equal_finite_differences_of_the_oracle(name, rng):
    x = rng.normal(0.3, 2, SHAPE).astype(np.float32)
    variables = variables_of(name, rng)
    weights = rng.normal(size=SHAPE).astype(np.float32)

    def loss(params, x):
        layer = SIX[name](groups=GROUPS, use_running_average=False)
        return jnp.vdot(weights, layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])[0])

    at = (variables["params"], x)
    gradients = jax.jit(jax.grad(loss, (0, 1)))(*at)
    for leaf in (*variables["params"], "x"):
        params_step = {key: rng.normal(size=value.shape) * (key == leaf) for key, value in at[0].items()}
        x_step = rng.normal(size=x.shape) * (leaf == "x")

        def shifted(size, params_step=params_step, x_step=x_step):
            params = {key: value + size * params_step[key] for key, value in at[0].items()}
            return np.vdot(weights, oracle(name, params, x + size * x_step))

        slope = (shifted(1e-6) - shifted(-1e-6)) / 2e-6
        ours = np.vdot(gradients[1], x_step)
        ours += sum(np.vdot(gradients[0][key], step) for key, step in params_step.items())
        np.testing.assert_allclose(ours, slope, rtol=1e-4, atol=1e-3, err_msg=leaf)


class _Net(nn.Module):
    """A small convolutional net; the first layer is told the mode when made, the second when called."""

    layer: type[nn.Module]

    @nn.compact
    def __call__(self, x, train):
        x = self.layer(use_running_average=not train)(nn.Conv(8, (3, 3))(x))
        x = self.layer()(nn.Conv(8, (3, 3))(x), use_running_average=not train)
        return nn.Dense(3)(x.mean((1, 2)))


LAYERS = [en.EvoNormB0, en.EvoNormS0, en.FilterResponseNorm, en.BatchNormAct, en.GroupNormAct]


@pytest.mark.parametrize("layer", LAYERS)
def test_drops_in_for_batch_norm_and_its_activation(layer, rng):
    x = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    net = _Net(layer)
    variables = net.init(jax.random.key(0), x, train=True)
    y, updates = net.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.shape == (2, 3)
    before, after = (tree.get("batch_stats") for tree in (variables, updates))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).all(), before, after)))
    assert net.apply(variables, x, train=False).shape == (2, 3)


def test_the_mode_is_given_once(rng):
    x = rng.normal(size=SHAPE).astype(np.float32)
    with pytest.raises(ValueError, match='"use_running_average" was passed to the constructor and at call'):
        en.EvoNormB0(use_running_average=True).init(jax.random.key(0), x, use_running_average=True)
    with pytest.raises(ValueError, match='"use_running_average" must be passed'):
        en.EvoNormB0().init(jax.random.key(0), x)
    en.EvoNormS0().init(jax.random.key(0), x)  # has no batch statistics to choose


def test_moving_variance_equals_that_of_batch_norm(rng):
    """Same start, same momentum convention, both biased: at 2 x 3 values a batch, 20 % apart if not."""
    ours, flax_norm = (
        layer(use_running_average=False, momentum=0.7) for layer in (en.EvoNormB0, nn.BatchNorm)
    )
    x = jnp.ones((2, 3, 5))
    variables = [layer.init(jax.random.key(0), x) for layer in (ours, flax_norm)]
    for _ in range(2):
        x = rng.normal(1, 3, x.shape).astype(np.float32)
        for i, layer in enumerate((ours, flax_norm)):
            variables[i] |= layer.apply(variables[i], x, mutable=["batch_stats"])[1]
    stats = [variables[i]["batch_stats"]["var"] for i in range(2)]
    np.testing.assert_allclose(*stats, rtol=1e-5)


def test_statistics_change_in_training_alone(rng):
    x = rng.normal(0, 9, SHAPE).astype(np.float32)
    layer = en.EvoNormB0()
    variables = layer.init(jax.random.key(0), x, use_running_average=False)
    np.testing.assert_array_equal(variables["batch_stats"]["var"], 1)
    _, updates = layer.apply(variables, x, use_running_average=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(updates["batch_stats"]["var"], 1)
    with pytest.raises(flax.errors.ModifyScopeVariableError):
        layer.apply(variables, x, use_running_average=False)


def test_graph_norm_act_names_its_variables_by_leaf_and_moment(rng):
    graph = en.Graph.parse("v0 + v1 * (mean_bwh(x) + rms_bwh(x) + std_bwh(x) * std_bwh(sigmoid(x)))")
    x = rng.normal(1, 3, SHAPE).astype(np.float32)
    layer = en.GraphNormAct(graph=graph, use_running_average=False)
    variables = layer.init(jax.random.key(0), x)
    assert set(variables["params"]) == {"scale", "bias", "v0", "v1"}
    assert set(variables["batch_stats"]) == {"mean", "mean_square", "var", "var_1"}
    y, updates = layer.apply(variables, x, mutable=["batch_stats"])
    assert_close(y, evaluate_reference(graph, x))
    assert_close(updates["batch_stats"]["mean"], 0.1 * x.mean((0, 1, 2)))


def test_the_maximum_keeps_nan_of_either_side_and_a_gradient_at_a_tie():
    layer = en.GraphNormAct(graph=en.Graph.parse("max(x, v0)"))
    x = jnp.array([-1.0, 0.0, 1.0, jnp.nan, 0.0]).reshape(1, 1, 5)
    params = {"scale": jnp.ones(5), "bias": jnp.zeros(5), "v0": jnp.zeros(5).at[4].set(jnp.nan)}

    def apply(params, x):
        return layer.apply({"params": params}, x)

    np.testing.assert_array_equal(apply(params, x)[0, 0], [0, 0, 1, np.nan, np.nan])
    to_params, to_x = jax.grad(lambda *args: jnp.sum(apply(*args)[..., :3]), (0, 1))(params, x)
    np.testing.assert_array_equal(to_x[0, 0, :3] + to_params["v0"][:3], 1)


@six
def test_the_second_step_does_not_compile_again(name, rng):
    """Statistics and parameters that come out of a step have the types of those that went in."""
    layer = SIX[name](use_running_average=False)
    x = rng.normal(size=SHAPE).astype(np.float32)

    @jax.jit
    def step(variables, x):
        def loss(params):
            y, updates = layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return y.sum(), updates

        gradient, updates = jax.grad(loss, has_aux=True)(variables["params"])
        return {**updates, "params": jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], gradient)}

    variables = layer.init(jax.random.key(0), x)
    for _ in range(3):
        variables = step(variables, x)
    assert step._cache_size() == 1
