"""With JAX_ENABLE_X64=1 batches and crops are the same, and trainings and the proxy task stay in 32 bits."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from support import mains, search_configs
from support.train_runs import finish, start

from evonorms_jax import data
from evonorms_jax.evolution import session
from evonorms_jax.evolution.proxy import make_proxy_task, proxy_data
from evonorms_jax.evolution.stability import make_stability_test
from evonorms_jax.models import get_anchor
from evonorms_jax.search_space import CATALOG
from evonorms_jax.training.classification import build_task
from experiments.configs import train


def shown(draw):
    with jax.enable_x64(False):
        expected = np.asarray(draw())
    with jax.enable_x64(True):
        found = np.asarray(draw())
    assert found.dtype == expected.dtype
    return found, expected


def test_batches_and_crops_are_those_of_32_bits():
    np.testing.assert_array_equal(*shown(lambda: data.batch_indices(jax.random.key(3), jnp.int32(2), 97, 16)))
    images = np.arange(8 * 9 * 9, dtype=np.uint8).reshape(8, 9, 9, 1)
    np.testing.assert_array_equal(*shown(lambda: data.random_crop_flip(jax.random.key(4), images, 5, True)))


def wide(jaxpr):
    """Arrays of 64-bit floats in a program, other than constants of no dtype of their own."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            array = variable.aval
            if array.size > 1 and not array.weak_type and array.dtype == np.float64:
                yield f"{equation.primitive.name}: {array}"
        for inner in jaxprs_in_params(equation.params):
            yield from wide(inner)


def test_the_proxy_task_and_the_stability_test_compute_in_32_bits():
    config = search_configs.quick()
    proxy, images = session.proxy_settings(config), session.load_images(config)
    graph, key = CATALOG["evonorm_b0"], jax.random.key(0, impl="rbg")

    def search(data, key):
        state = task.init(graph, key)
        tested = make_stability_test(task, steps=3, max_norm=1e8, step_size=0.01)(
            graph, state, jnp.zeros((4, 10, 10, 1), jnp.float32), data.labels[:4]
        )
        state = task.train(graph, state, data, key, np.int32(5))
        return state, tested, task.accuracy(graph, state, data)

    with jax.enable_x64(True):
        layer = config.layer.to_dict()
        task = make_proxy_task(get_anchor("resnet_tiny"), images.num_classes, layer, proxy, 1)
        program, found = jax.make_jaxpr(search, return_shape=True)(
            proxy_data(images, proxy.eval_batch_size), key
        )
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype("float32"), np.dtype("int32")}
    assert not list(wide(program.jaxpr))


def test_a_training_has_the_state_of_32_bits():
    config = train.get_config("quick")
    small = {"data.source": "synthetic", "data.image_size": 8, "data.crop": 6, "data.train_size": 64}
    small |= {"model.name": "resnet_tiny", "mixup": 0.2, "average_decay": 0.9, "label_smoothing": 0.1}
    small |= {"batch_size": 16, "statistics_batch": 4, "accumulate": 2}
    config.update_from_flattened_dict(small)
    with jax.enable_x64(True):
        task = build_task(config, jax.devices()[:1])
        batch = next(task.batches(0))
        state, metrics = jax.eval_shape(task.train_step, task.target, batch)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), (state, task.target))
    assert shapes[0] == shapes[1]
    assert {leaf.dtype for leaf in jax.tree.leaves((state, metrics))} <= {
        np.dtype("float32"),
        np.dtype("int32"),
    }


def test_a_main_trains_with_64_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    settings = {"steps": 4, "eval_every": 4, "model.name": "resnet_tiny", "mixup": 0.2, "average_decay": 0.9}
    status, out, err = finish(start(tmp_path / "run", begin=mains.launch, **settings))
    assert status == 0 and "after 4 steps" in out, err


@pytest.mark.exhaustive
def test_a_search_with_64_bits_has_the_same_history(tmp_path, monkeypatch):
    flags = {"budget": 24, "proxy.steps": 10, "rejection.quality_steps": 5, "rejection.stability_steps": 3}
    flags |= {"data.train_size": 64, "data.validation_size": 32, "rejection.quality_threshold": 0.5}
    histories = []
    for enabled in ("0", "1"):
        monkeypatch.setitem(os.environ, "JAX_ENABLE_X64", enabled)
        done = mains.run(
            "search",
            "--config=experiments/configs/search_mnist5k.py:quick",
            f"--workdir={tmp_path / enabled}",
            "--cpu_devices=1",
            *(f"--config.{key}={value}" for key, value in flags.items()),
            begin=mains.launch,
        )
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / enabled / "history.jsonl").read_text().splitlines()
        histories.append([json.loads(line) for line in lines])
    for record in histories[0] + histories[1]:
        del record["seconds"]
    assert histories[0] == histories[1]
