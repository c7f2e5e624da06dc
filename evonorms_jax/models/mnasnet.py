"""MnasNet-A1, with squeeze-excite, and MnasNet-B1, without (Tan et al. 2019, arXiv 1807.11626).

Trainable parameters at 1000 classes, where a norm has a scale and a bias for each channel: A1
3,887,038 (the paper: 3.9 million), B1 4,383,312, both as in the released TensorFlow code and its ports
to PyTorch. From that code come the stages, ReLU inside squeeze-excite and the dropout rate.
"""

import functools

from flax import linen as nn

from evonorms_jax.models.inverted_bottleneck import InvertedBottleneckNet, InvertedStage

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
    InvertedBottleneckNet,
    stages=MNASNET_A1_STAGES,
    squeeze_activation=nn.relu,
    dropout_rate=0.2,
)
MnasNetB1 = functools.partial(InvertedBottleneckNet, stages=MNASNET_B1_STAGES, dropout_rate=0.2)
