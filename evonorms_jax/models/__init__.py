"""Convolutional networks that take their normalization-activation layer by injection."""

from evonorms_jax.models.classifier import NormActConstructor
from evonorms_jax.models.convolution import Conv, convolve
from evonorms_jax.models.inverted_bottleneck import InvertedBottleneckNet, InvertedStage
from evonorms_jax.models.mobile_networks import (
    EfficientNetB0,
    EfficientNetB1,
    EfficientNetB2,
    EfficientNetB3,
    EfficientNetB4,
    EfficientNetB5,
    EfficientNetB6,
    EfficientNetB7,
    MnasNetA1,
    MnasNetB1,
    MobileNetV2,
)
from evonorms_jax.models.networks import ANCHORS, MODELS, Network, build_model, get_anchor, get_model
from evonorms_jax.models.resnet import ResNet, ResNet50, ResNet101, ResNetStage

__all__ = [
    "ANCHORS",
    "MODELS",
    "Conv",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "InvertedBottleneckNet",
    "InvertedStage",
    "MnasNetA1",
    "MnasNetB1",
    "MobileNetV2",
    "Network",
    "NormActConstructor",
    "ResNet",
    "ResNet50",
    "ResNet101",
    "ResNetStage",
    "build_model",
    "convolve",
    "get_anchor",
    "get_model",
]
