"""An anchor of one convolution and one layer, whose programs are built in a fraction of the time."""

import pytest
from flax import linen as nn

from evonorms_jax.models import networks
from evonorms_jax.models.classifier import Classifier, NormActConstructor
from support.search_configs import quick

#: A program that gives the main of its first argument this anchor. It belongs after `-c`.
MAIN = """
import runpy, sys
from support import one_block
one_block.add()
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class OneBlock(nn.Module):
    """Convolution, layer, logits."""

    norm_act: NormActConstructor
    num_classes: int

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(16, (3, 3), use_bias=False)(x)
        x = self.norm_act(use_running_average=not train, dtype=x.dtype, name="layer")(x)
        return Classifier(self.num_classes)(x, train=train)


def add():
    """Registers the anchor in this process."""
    networks.ANCHORS[NETWORK.name] = NETWORK


NETWORK = networks.Network("one_block", "one convolution and one layer", OneBlock)


@pytest.fixture
def config(monkeypatch):
    """The quick search on this anchor."""
    monkeypatch.setitem(networks.ANCHORS, NETWORK.name, NETWORK)
    config = quick()
    config.anchors = (NETWORK.name,)
    return config
