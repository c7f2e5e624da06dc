"""The proxy task: its start weights."""

import jax
import numpy as np

from evonorms_jax.evolution.proxy import ProxySettings, make_proxy_task
from evonorms_jax.models import get_anchor
from evonorms_jax.search_space import CATALOG

SETTINGS = ProxySettings(
    steps=1,
    batch_size=4,
    learning_rate=0.1,
    schedule="constant",
    warmup_steps=0,
    momentum=0.9,
    weight_decay=0.0,
    replicas=1,
    eval_batch_size=4,
    crop=8,
    flip=False,
)


def start_parameters(scale):
    settings = SETTINGS._replace(init_scale=scale)
    task = make_proxy_task(get_anchor("resnet_tiny"), 10, {"group_size": 4}, settings, 1)
    return jax.jit(task.init)(task.encode(CATALOG["evonorm_b0"]), jax.random.key(0)).params


def test_the_scale_of_the_start_weights_multiplies_the_kernels_before_the_classifier_alone():
    plain, scaled = (jax.tree_util.tree_leaves_with_path(start_parameters(scale)) for scale in (1.0, 0.25))
    names = set()
    for (path, before), (_, after) in zip(plain, scaled, strict=True):
        *_, name = keys = [key.key for key in path]
        of_body = name == "kernel" and "classifier" not in keys
        names |= {(name, of_body)}
        np.testing.assert_array_equal(after, 0.25 * before if of_body else before)
    assert {("kernel", True), ("kernel", False), ("v1", False), ("scale", False)} <= names
