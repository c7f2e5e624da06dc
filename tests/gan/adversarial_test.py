"""The step of both networks: parts, groups, devices, the average, metrics, and exact resumption."""

import functools

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from support.gan_configs import tiny_config
from support.train_runs import SharedTasks

from evonorms_jax.gan import adversarial
from evonorms_jax.gan.task import build_task, make_mesh
from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.training import loop

#: Adam's first steps depend on the sign of a gradient alone, and so on rounding where it is near 0. With a
#: large guard they are those of gradient descent.
BASE = {"average_start": 1, "average_decay": 0.75, "adam.epsilon": 1.0}


@functools.cache
def task_of(devices=1, **overrides):
    return build_task(tiny_config(**BASE | overrides), jax.devices()[:devices])


@functools.cache
def trained(devices=1, **overrides):
    """States on the host after 0, 1 and 2 steps, and the metrics of both steps."""
    task = task_of(devices, **overrides)
    state, batches = task.init(), task.batches(0)
    states, metrics = [jax.device_get(state)], []
    for _ in range(2):
        state, found = task.train_step(state, next(batches))
        states.append(jax.device_get(state))
        metrics.append(jax.device_get(found))
    return states, metrics


def gradients_of(state):
    """The first moments of Adam, which with b1 = 0 are the last gradients."""
    return {name: opt_state[0].mu for name, opt_state in state.opt_state.items()}


def assert_near(found, expected, tolerance=2e-3):
    def near(path, one, other):
        np.testing.assert_allclose(one, other, tolerance, tolerance, err_msg=jax.tree_util.keystr(path))

    jax.tree_util.tree_map_with_path(near, found, expected)


def differ(one, other):
    """Whether any leaf differs visibly."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return any(np.abs(a - b).max() > 1e-4 for a, b in pairs)


def test_everything_moves_and_all_metrics_are_finite():
    (start, _, state), metrics = trained()
    assert (int(start.step), int(state.step)) == (0, 2)
    for kind in ("params", "spectral"):
        before = flatten_dict(getattr(start, kind))
        for path, leaf in flatten_dict(getattr(state, kind)).items():
            assert (leaf != before[path]).any() or leaf.size == 1, path
    assert {name for one in metrics for name in one} == {
        *("discriminator_loss", "generator_loss", "logit_real", "logit_fake", "saturated_share"),
        *("class_variance_ratio", "sigma", "discriminator_gradient_norm", "generator_gradient_norm"),
    }
    assert all(np.isfinite(value) for one in metrics for value in one.values())
    assert metrics[0]["sigma"] == pytest.approx(1, abs=0.02)


@pytest.mark.exhaustive
def test_eight_devices_train_like_one_with_statistics_of_the_whole_batch():
    """Values and gradients: a norm that is synchronized wrongly is a classic bug."""
    states, metrics = trained(1)
    eight, others = trained(8)
    assert_near(eight[-1].params, states[-1].params)
    assert_near(gradients_of(eight[-1]), gradients_of(states[-1]))
    assert_near(others, metrics)


@pytest.mark.exhaustive
@pytest.mark.parametrize("spec", ["bn_relu", "evonorm_b0"])
def test_groups_and_parts_change_only_the_order_of_sums(spec):
    """Groups of four images have the same statistics on eight devices as one after the other on one."""
    shared = {"layer.spec": spec, "statistics_batch": 4, "discriminator_steps": 2, "orthogonal": 1e-4}
    states, metrics = trained(8, **shared)
    parts, others = trained(1, **shared, accumulate=2)
    assert_near(parts[-1].params, states[-1].params)
    assert_near(gradients_of(parts[-1]), gradients_of(states[-1]))
    assert_near(parts[-1].spectral, states[-1].spectral, 1e-2)
    for name in ("discriminator_loss", "generator_loss", "logit_real", "logit_fake"):
        values = ([one[name] for one in each] for each in (others, metrics))
        np.testing.assert_allclose(*values, rtol=1e-2, atol=1e-2)
    whole, _ = trained(1, **shared | {"statistics_batch": None})
    assert differ(gradients_of(whole[-1])["generator"], gradients_of(parts[-1])["generator"])


def test_groups_parts_steps_and_regularization_can_be_traced_on_eight_devices():
    task = task_of(8, statistics_batch=4, accumulate=2, discriminator_steps=2, orthogonal=1e-4)
    assert {leaf.sharding.mesh.size for leaf in jax.tree.leaves(task.target)} == {8}


def test_a_step_is_a_function_of_its_state_and_batch():
    """It has no other source of randomness, and draws anew in every step."""
    (start, first, _), _ = trained()
    task = task_of()
    batch = next(task.batches(0))
    again, metrics = task.train_step(jax.device_put(start), batch)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), first)
    later = start._replace(step=np.int32(1))
    _, others = task.train_step(jax.device_put(later), batch)
    assert float(others["generator_loss"]) != float(metrics["generator_loss"])


def test_a_batch_is_cut_into_steps_parts_and_groups_without_loss():
    """Groups hold neighbors, so that they are the same for any number of parts."""
    mesh = make_mesh(tiny_config(), jax.devices()[:1])
    values = np.arange(48)
    cut = {
        parts: adversarial._cut(values, groups=4 // parts, parts=parts, mesh=mesh, steps=3)
        for parts in (1, 2)
    }
    assert cut[2].shape == (3, 2, 2, 4)
    assert sorted(np.ravel(cut[2])) == list(range(48))
    groups = [{tuple(group) for group in np.reshape(cut[parts][0], (-1, 4)).tolist()} for parts in (1, 2)]
    assert groups[0] == groups[1]


def test_the_average_is_a_copy_until_its_start_and_then_moves_by_its_decay():
    (_, first, second), _ = trained()
    jax.tree.map(np.testing.assert_array_equal, first.average, first.params["generator"])
    expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, first.average, second.params["generator"])
    assert_near(second.average, expected, 1e-5)


@pytest.mark.exhaustive
def test_orthogonal_regularization_reaches_the_generator_alone():
    (_, plain, _), _ = trained()
    (_, strong, _), _ = trained(orthogonal=10.0)
    assert_near(gradients_of(strong)["discriminator"], gradients_of(plain)["discriminator"], 1e-5)
    # Orthogonal columns have no penalty; the columns of a wide kernel cannot be orthogonal.
    one, other = (gradients_of(state)["generator"]["bottom"] for state in (strong, plain))
    assert np.abs(one["kernel"] - other["kernel"]).max() > 1e-2
    assert_near(one["bias"], other["bias"], 1e-5)


def newest(workdir):
    with Checkpoints(workdir / loop.CHECKPOINTS, write=False) as checkpoints:
        return checkpoints.restore().arrays


@pytest.mark.parametrize(
    "overrides",
    [{}, pytest.param({"dtype": "bfloat16", "discriminator_steps": 2}, marks=pytest.mark.exhaustive)],
    ids=["float32", "bfloat16"],
)
def test_a_resumed_training_ends_bit_for_bit_as_one_that_did_not_stop(overrides, tmp_path):
    """With every random draw of a step, both networks, both optimizers and the average."""
    tasks = SharedTasks(lambda config, devices: task_of(**overrides))
    config = tiny_config(**BASE | overrides)
    whole = loop.train(config, tmp_path / "whole", tasks)
    assert whole.steps == 4 and np.isfinite(whole.test["logit"])
    tasks.last = 3
    with pytest.raises(OSError, match="power cut"):
        loop.train(config, tmp_path / "broken", tasks)
    assert int(newest(tmp_path / "broken")["step"]) == 2
    tasks.last = None
    assert loop.train(config, tmp_path / "broken", tasks) == whole
    expected = newest(tmp_path / "whole")
    jax.tree.map(np.testing.assert_array_equal, newest(tmp_path / "broken"), expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(expected)} == {np.dtype("float32"), np.dtype("int32")}
