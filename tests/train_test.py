"""Training: each step against its formula, any number of devices, and whole runs that are killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from evonorms_jax import data
from evonorms_jax.layers import norm_act
from evonorms_jax.training.mesh import check_divisible, data_mesh
from evonorms_jax.training.optimizer import sgd
from evonorms_jax.training.steps import (
    Batching,
    cross_entropy,
    make_evaluate,
    make_init,
    make_train_step,
    training_set,
)

ROOT = Path(__file__).parent.parent
KEY = jax.random.key(0)
RATE = 0.1


class Network(nn.Module):
    """A convolution, a layer, dropout, a linear classifier."""

    layer: str
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(8, (3, 3))(x)
        x = norm_act(self.layer, groups=2)(use_running_average=not train)(x)
        x = nn.Dropout(self.dropout)(jnp.mean(x, (1, 2)), deterministic=not train)
        return nn.Dense(4)(x)


@pytest.fixture(scope="module")
def images():
    return data.load("synthetic", train_size=64, validation_size=23, image_size=8)


def training(images, layer="bn_relu", *, devices=None, dropout=0.0, crop=6, label_smoothing=0.0):
    """The initial state, and a step of it."""
    mesh = data_mesh(devices)
    model, optimizer = Network(layer, dropout), sgd(lambda _: RATE, momentum=0.0, weight_decay=0.0)
    batching = Batching(batch_size=16, crop=crop, flip=True)
    state = make_init(model, optimizer, images, mesh)(KEY)
    step = make_train_step(model, optimizer, batching, mesh, label_smoothing=label_smoothing)
    examples = training_set(images, mesh)
    return state, lambda state: step(state, examples, KEY), step


def test_a_step_follows_the_gradient_of_its_batch(images):
    """With whole images of one orientation nothing is random but the choice of the batch."""
    mirrored = np.concatenate([images.train.images, images.train.images[:, :, ::-1]], axis=2)
    symmetric = images._replace(train=images.train._replace(images=mirrored[:, :, 4:12]))
    symmetric = symmetric._replace(
        train=symmetric.train._replace(
            images=np.maximum(symmetric.train.images, symmetric.train.images[:, :, ::-1])
        )
    )
    state, train_step, _ = training(symmetric, crop=8, devices=jax.devices()[:1])
    params, stats = jax.tree.map(np.asarray, (state.params, state.batch_stats))
    order_key, _ = jax.random.split(KEY)
    chosen = data.batch_indices(order_key, 0, 64, 16)
    x = data.normalize(symmetric.train.images[chosen], images.mean, images.std)
    labels = symmetric.train.labels[chosen]

    def loss_of(params):
        variables = {"params": params, "batch_stats": stats}
        logits, updated = Network("bn_relu").apply(variables, x, train=True, mutable=["batch_stats"])
        picked = jnp.take_along_axis(nn.log_softmax(logits), labels.reshape(-1, 1), axis=1)
        return -jnp.mean(picked), (logits, updated["batch_stats"])

    (loss, (logits, new_stats)), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
    expected = jax.tree.map(lambda p, g: p - RATE * g, params, gradient)
    after, metrics = train_step(state)
    assert int(after.step) == 1
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, (after.params, after.batch_stats), (expected, new_stats))
    close(metrics["loss"], loss)
    close(metrics["accuracy"], np.mean(np.argmax(logits, -1) == labels))


@pytest.mark.parametrize("layer", ["bn_relu", "evonorm_b0", "evonorm_s0"])
def test_eight_devices_do_what_one_does(images, layer):
    histories = []
    for devices in (jax.devices(), jax.devices()[:1]):
        state, train_step, step = training(images, layer, devices=devices, dropout=0.5)
        losses = []
        for _ in range(4):
            state, metrics = train_step(state)
            losses.append(float(metrics["loss"]))
        histories.append((losses, jax.device_get(state)))
        assert step._cache_size() == 1
    (losses, state), (expected_losses, expected) = histories
    assert len(set(losses)) == 4
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state, expected)


def test_the_batch_is_split_over_the_devices(images):
    mesh = data_mesh()
    model, optimizer = Network("evonorm_s0"), sgd(lambda _: RATE, momentum=0.0, weight_decay=0.0)
    step = make_train_step(model, optimizer, Batching(16, 6, False), mesh)
    state = jax.eval_shape(make_init(model, optimizer, images, mesh), KEY)
    program = step.lower(state, training_set(images, mesh), KEY).compile().as_text()
    # The feature maps of a device hold 16 / 8 examples, and gradients are added up.
    assert re.search(r"f32\[2,6,6,8\]", program) and not re.search(r"f32\[16,6,6,8\]", program)
    assert "all-reduce" in program


def test_what_a_step_draws_depends_on_its_number_alone(images):
    """Three steps from the state after two are steps three to five, crops and dropout included."""
    state, train_step, _ = training(images, dropout=0.5)
    losses = []
    for number in range(5):
        if number == 2:
            kept = jax.device_get(state)
        state, metrics = train_step(state)
        losses.append(float(metrics["loss"]))
    again = []
    state = jax.device_put(kept, state.step.sharding)
    for _ in range(3):
        state, metrics = train_step(state)
        again.append(float(metrics["loss"]))
    assert again == losses[2:]


def test_label_smoothing():
    logits = jnp.array([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]])
    labels = jnp.array([0, 1])
    log_p = np.asarray(nn.log_softmax(logits))
    targets = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    expected = -np.sum(targets * log_p, axis=1)
    np.testing.assert_allclose(cross_entropy(logits, labels, 0.3), expected, rtol=1e-5)
    np.testing.assert_allclose(cross_entropy(logits, labels), [-log_p[0, 0], -log_p[1, 1]], rtol=1e-5)


def test_evaluation_counts_every_image_once(images):
    state, _, _ = training(images)
    evaluate = make_evaluate(Network("bn_relu"), images, data_mesh())
    found = evaluate(state, data.eval_batches(images.validation, 16))  # 23 images: 9 of 32 are filling
    x = data.normalize(images.validation.images, images.mean, images.std)
    variables = {"params": jax.device_get(state.params), "batch_stats": jax.device_get(state.batch_stats)}
    logits = Network("bn_relu").apply(variables, x, train=False)
    labels = images.validation.labels
    assert found["accuracy"] == pytest.approx(np.mean(np.argmax(logits, -1) == labels))
    expected = np.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


def test_an_image_without_finite_logits_is_wrong(images):
    state, _, _ = training(images)
    lost = state._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, state.params))
    evaluate = make_evaluate(Network("bn_relu"), images, data_mesh())
    found = evaluate(lost, data.eval_batches(images.validation, 16))
    assert found["accuracy"] == 0 and np.isnan(found["loss"])


@pytest.mark.parametrize("size", [0, 12])
def test_a_batch_that_cannot_be_split_is_an_error(size):
    with pytest.raises(ValueError, match=f"batch_size must be a multiple of .* devices, 8, got {size}"):
        check_divisible("batch_size", size, data_mesh())


# -- Whole runs: 12 steps on made-up images, in a process of their own

SETTINGS = {
    "steps": 12,
    "batch_size": 8,
    "eval_batch_size": 32,
    "log_every": 2,
    "eval_every": 4,
    "checkpoint_every": 3,
    "model.name": "resnet_small",
    "data.source": "synthetic",
    "data.image_size": 8,
    "data.train_size": 64,
    "data.crop": 6,
    "optimizer.warmup_steps": 2,
}


def command(workdir, **overrides):
    flags = [f"--config.{key}={value}" for key, value in (SETTINGS | overrides).items()]
    config = "--config=experiments/configs/train.py"
    return [sys.executable, "-m", "experiments.train", config, f"--workdir={workdir}", *flags]


def start(workdir, **overrides):
    # One device: with the eight of the tests every step takes many times as long.
    environment = os.environ | {"EVONORMS_CACHE": str(ROOT / ".cache" / "jax"), "XLA_FLAGS": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(workdir, **overrides), cwd=ROOT, env=environment, **pipes)


def run(workdir, **overrides):
    with start(workdir, **overrides) as child:
        out, err = child.communicate()
    return child.returncode, out, err


def wait_for_checkpoint(child, workdir):
    """Returns once the run has a checkpoint, with many steps to go."""
    while not list((workdir / "checkpoints").glob("*/manifest.json")):
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run that nobody disturbed: work directory, output, log."""
    workdir = tmp_path_factory.mktemp("train") / "run"
    status, out, err = run(workdir)
    assert status == 0, err
    return workdir, out, err


def test_a_run_reports_what_it_reached(uninterrupted):
    workdir, out, err = uninterrupted
    result = json.loads((workdir / "result.json").read_text())
    assert result["steps"] == 12
    validation, test = result["validation"], result["test"]
    assert 0 <= validation["accuracy"] <= 1 and 0 <= test["accuracy"] <= 1
    expected = f"validation accuracy {validation['accuracy']:.4f}, test accuracy {test['accuracy']:.4f}"
    assert out.startswith(expected)
    assert re.search(r" 12/12 \(100 %\), .*model resnet_small \| layer evonorm_b0 .*\| loss ", err)
    # One log line, and nothing from the libraries below.
    assert len(re.findall(r"^[IWE]\d{4}", err, re.M)) == 1 and "rbax" not in err
    steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert steps == [6, 9, 12]


def test_a_killed_run_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    workdir = tmp_path / "run"
    with start(workdir) as child:
        wait_for_checkpoint(child, workdir)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    assert not (workdir / "result.json").exists()
    status, _, err = run(workdir)
    assert status == 0, err
    assert not re.search(r" 0/12 ", err)
    expected = (uninterrupted[0] / "result.json").read_text()
    assert (workdir / "result.json").read_text() == expected
    # The same command once more has nothing left to do, and the same to say.
    (workdir / "result.json").unlink()
    assert run(workdir)[0] == 0
    assert (workdir / "result.json").read_text() == expected


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    workdir = tmp_path / "run"
    with start(workdir, steps=100_000, checkpoint_every=3) as child:
        wait_for_checkpoint(child, workdir)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate()
    assert child.returncode == 130 and "Traceback" not in err
    found = re.fullmatch(
        r"stopped and saved at step (\d+) of 100000; the same command goes on from there",
        err.splitlines()[-1],
    )
    assert (workdir / "checkpoints" / found[1] / "manifest.json").exists()


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    overrides = {"optimizer.learning_rate": 1e30, "optimizer.warmup_steps": 0, "log_every": 12}
    status, out, err = run(tmp_path / "run", **overrides, checkpoint_every=12)
    assert (status, out) == (1, "")
    lines = err.splitlines()
    assert re.fullmatch(r"error: the loss is (nan|inf) at step [2-5]: the training is lost", lines[-1]), err
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_wrong_settings_claim_no_work_directory(tmp_path):
    status, _, err = run(tmp_path / "run", **{"data.crop": 9})
    assert status == 2 and err.splitlines()[-1] == "error: crop size must be from 1 to 8, got 9"
    assert not (tmp_path / "run").exists()


def test_another_config_is_refused(uninterrupted):
    status, _, err = run(uninterrupted[0], seed=7)
    assert status == 2
    assert err.splitlines()[-1].endswith("belongs to another config: seed is 0 there and 7 now")
