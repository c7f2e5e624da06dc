"""Blocks in a loop compute the same as separate blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evonorms_jax.errors import UserError
from evonorms_jax.layers import norm_act
from evonorms_jax.models.inverted_bottleneck import InvertedBottleneckNet, InvertedStage
from evonorms_jax.models.resnet import ResNet, ResNetStage

RESNET = {"stages": (ResNetStage(width=2, blocks=3, stride=1),), "stem_features": 4}
MOBILE = {"stages": (InvertedStage(8, 3, 2, 2, 3, 0.25),), "stem_features": 8, "head_features": 8}


def separate(variables):
    """The variables of a loop over two blocks as those of the second and the third block."""
    found = {}
    for kind, tree in variables.items():
        rest = tree["stage_1_block_2"]
        rows = {f"stage_1_block_{i + 2}": jax.tree.map(lambda leaf, i=i: leaf[i], rest) for i in range(2)}
        found[kind] = {**tree, **rows}
    return found


@pytest.mark.parametrize(("network", "fields"), [(ResNet, RESNET), (InvertedBottleneckNet, MOBILE)])
def test_a_loop_computes_the_blocks_one_after_the_other(network, fields, rng):
    images = jnp.asarray(rng.normal(size=(2, 8, 8, 1)), jnp.float32)
    loop, blocks = (
        network(norm_act("bn_relu"), num_classes=3, scan_blocks=scan, **fields) for scan in (True, False)
    )
    variables = jax.jit(lambda key: loop.init(key, images, train=True))(jax.random.key(0))
    kernels = variables["params"]["stage_1_block_2"]
    assert all(leaf.shape[0] == 2 for leaf in jax.tree.leaves(kernels))
    assert not any(np.array_equal(leaf[0], leaf[1]) for leaf in jax.tree.leaves(kernels) if leaf.ndim > 4)

    def apply(model, variables):
        return jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"]))(variables)

    logits, updated = apply(loop, variables)
    expected, stats = apply(blocks, separate(variables))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), separate(updated), dict(stats))


def test_a_loop_has_no_drop_connect():
    model = InvertedBottleneckNet(norm_act("bn_relu"), drop_connect_rate=0.2, scan_blocks=True, **MOBILE)
    with pytest.raises(UserError, match=r"scan_blocks needs drop_connect_rate 0, got 0\.2"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=True))
