"""EfficientNet-B0 to B7 (Tan & Le 2019, arXiv 1905.11946), with compound scaling.

Trainable parameters at 1000 classes, where a norm has a scale and a bias for each channel, as in Keras
and torchvision: B0 5,288,548; B1 7,794,184; B2 9,109,994; B3 12,233,232; B4 19,341,616;
B5 30,389,784; B6 43,040,704; B7 66,347,960. Drop-connect and dropout are those of the released code.
"""

import functools
from typing import NamedTuple

from evonorms_jax.models.inverted_bottleneck import InvertedBottleneckNet, InvertedStage

EFFICIENTNET_STAGES = (
    InvertedStage(features=16, blocks=1, stride=1, expansion=1, kernel=3, squeeze=0.25),
    InvertedStage(features=24, blocks=2, stride=2, expansion=6, kernel=3, squeeze=0.25),
    InvertedStage(features=40, blocks=2, stride=2, expansion=6, kernel=5, squeeze=0.25),
    InvertedStage(features=80, blocks=3, stride=2, expansion=6, kernel=3, squeeze=0.25),
    InvertedStage(features=112, blocks=3, stride=1, expansion=6, kernel=5, squeeze=0.25),
    InvertedStage(features=192, blocks=4, stride=2, expansion=6, kernel=5, squeeze=0.25),
    InvertedStage(features=320, blocks=1, stride=1, expansion=6, kernel=3, squeeze=0.25),
)


class Scaling(NamedTuple):
    """Compound scaling of one variant."""

    width: float
    depth: float
    resolution: int  # side of the training images; the network itself takes any size
    dropout_rate: float


SCALINGS = {
    "b0": Scaling(1.0, 1.0, 224, 0.2),
    "b1": Scaling(1.0, 1.1, 240, 0.2),
    "b2": Scaling(1.1, 1.2, 260, 0.3),
    "b3": Scaling(1.2, 1.4, 300, 0.3),
    "b4": Scaling(1.4, 1.8, 380, 0.4),
    "b5": Scaling(1.6, 2.2, 456, 0.4),
    "b6": Scaling(1.8, 2.6, 528, 0.5),
    "b7": Scaling(2.0, 3.1, 600, 0.5),
}


def _variant(scaling):
    return functools.partial(
        InvertedBottleneckNet,
        stages=EFFICIENTNET_STAGES,
        width=scaling.width,
        depth=scaling.depth,
        shrink_head=True,
        dropout_rate=scaling.dropout_rate,
        drop_connect_rate=0.2,
    )


EFFICIENTNETS = {variant: _variant(scaling) for variant, scaling in SCALINGS.items()}

EfficientNetB0 = EFFICIENTNETS["b0"]
EfficientNetB1 = EFFICIENTNETS["b1"]
EfficientNetB2 = EFFICIENTNETS["b2"]
EfficientNetB3 = EFFICIENTNETS["b3"]
EfficientNetB4 = EFFICIENTNETS["b4"]
EfficientNetB5 = EFFICIENTNETS["b5"]
EfficientNetB6 = EFFICIENTNETS["b6"]
EfficientNetB7 = EFFICIENTNETS["b7"]
