"""MobileNetV2, MnasNet and EfficientNet: the tables of their stages, and how EfficientNet scales.

- MobileNetV2: Sandler et al. 2018, arXiv 1801.04381, table 2. The dropout rate is torchvision's.
- MnasNet-A1 and B1: Tan et al. 2019, arXiv 1807.11626. A1 has squeeze-excite with ReLU inside.
- EfficientNet-B0 to B7: Tan and Le 2019, arXiv 1905.11946, with squeeze-excite and drop-connect.

Trainable parameters at 1000 classes, with a scale and a bias for each channel of a norm: MobileNetV2
3,504,872, MnasNet-A1 3,887,038, MnasNet-B1 4,383,312, EfficientNet-B0 5,288,548, EfficientNet-B7 66,347,960.
"""

import functools
from typing import NamedTuple

from flax import linen as nn

from evonorms_jax.models.inverted_bottleneck import InvertedBottleneckNet, InvertedStage

# -- MobileNetV2

MOBILENET_V2_STAGES = (
    InvertedStage(features=16, blocks=1, stride=1, expansion=1, kernel=3),
    InvertedStage(features=24, blocks=2, stride=2, expansion=6, kernel=3),
    InvertedStage(features=32, blocks=3, stride=2, expansion=6, kernel=3),
    InvertedStage(features=64, blocks=4, stride=2, expansion=6, kernel=3),
    InvertedStage(features=96, blocks=3, stride=1, expansion=6, kernel=3),
    InvertedStage(features=160, blocks=3, stride=2, expansion=6, kernel=3),
    InvertedStage(features=320, blocks=1, stride=1, expansion=6, kernel=3),
)

MobileNetV2 = functools.partial(InvertedBottleneckNet, stages=MOBILENET_V2_STAGES, dropout_rate=0.2)

# -- MnasNet

MNASNET_A1_STAGES = (
    InvertedStage(features=16, blocks=1, stride=1, expansion=1, kernel=3),
    InvertedStage(features=24, blocks=2, stride=2, expansion=6, kernel=3),
    InvertedStage(features=40, blocks=3, stride=2, expansion=3, kernel=5, squeeze=0.25),
    InvertedStage(features=80, blocks=4, stride=2, expansion=6, kernel=3),
    InvertedStage(features=112, blocks=2, stride=1, expansion=6, kernel=3, squeeze=0.25),
    InvertedStage(features=160, blocks=3, stride=2, expansion=6, kernel=5, squeeze=0.25),
    InvertedStage(features=320, blocks=1, stride=1, expansion=6, kernel=3),
)

MNASNET_B1_STAGES = (
    InvertedStage(features=16, blocks=1, stride=1, expansion=1, kernel=3),
    InvertedStage(features=24, blocks=3, stride=2, expansion=3, kernel=3),
    InvertedStage(features=40, blocks=3, stride=2, expansion=3, kernel=5),
    InvertedStage(features=80, blocks=3, stride=2, expansion=6, kernel=5),
    InvertedStage(features=96, blocks=2, stride=1, expansion=6, kernel=3),
    InvertedStage(features=192, blocks=4, stride=2, expansion=6, kernel=5),
    InvertedStage(features=320, blocks=1, stride=1, expansion=6, kernel=3),
)

MnasNetA1 = functools.partial(
    InvertedBottleneckNet, stages=MNASNET_A1_STAGES, squeeze_activation=nn.relu, dropout_rate=0.2
)
MnasNetB1 = functools.partial(InvertedBottleneckNet, stages=MNASNET_B1_STAGES, dropout_rate=0.2)

# -- EfficientNet

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
    resolution: int  # side of the training images; the network accepts any size
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

EFFICIENTNETS = {
    variant: functools.partial(
        InvertedBottleneckNet,
        stages=EFFICIENTNET_STAGES,
        width=scaling.width,
        depth=scaling.depth,
        shrink_head=True,
        dropout_rate=scaling.dropout_rate,
        drop_connect_rate=0.2,
    )
    for variant, scaling in SCALINGS.items()
}

EfficientNetB0 = EFFICIENTNETS["b0"]
EfficientNetB1 = EFFICIENTNETS["b1"]
EfficientNetB2 = EFFICIENTNETS["b2"]
EfficientNetB3 = EFFICIENTNETS["b3"]
EfficientNetB4 = EFFICIENTNETS["b4"]
EfficientNetB5 = EFFICIENTNETS["b5"]
EfficientNetB6 = EFFICIENTNETS["b6"]
EfficientNetB7 = EFFICIENTNETS["b7"]
