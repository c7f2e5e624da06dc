"""The layers as Flax NNX modules. `evonorms_jax` has the Linen ones."""

from evonorms_jax.layers.nnx import (
    ChannelNormAct,
    DynamicErf,
    DynamicTanh,
    EvoNormB0,
    EvoNormB1,
    EvoNormB2,
    EvoNormS0,
    EvoNormS0a,
    EvoNormS1,
    EvoNormS2,
    GraphNormAct,
    NoNormAct,
    PixelNormAct,
    RMSNormAct,
)

__all__ = [
    "ChannelNormAct",
    "DynamicErf",
    "DynamicTanh",
    "EvoNormB0",
    "EvoNormB1",
    "EvoNormB2",
    "EvoNormS0",
    "EvoNormS0a",
    "EvoNormS1",
    "EvoNormS2",
    "GraphNormAct",
    "NoNormAct",
    "PixelNormAct",
    "RMSNormAct",
]
