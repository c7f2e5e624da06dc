"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381, table 2).

Trainable parameters at width 1 and 1000 classes, where a norm has a scale and a bias for each channel:
3,504,872, as in torchvision, whose dropout rate is the default here.
"""

import functools

from evonorms_jax.models.inverted_bottleneck import InvertedBottleneckNet, InvertedStage

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
