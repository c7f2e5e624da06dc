"""The layers as Flax NNX modules. `evonorms_jax` has the Linen ones."""

from evonorms_jax.layers.nnx import (
    EvoNormB0,
    EvoNormB1,
    EvoNormB2,
    EvoNormS0,
    EvoNormS1,
    EvoNormS2,
    GraphNormAct,
    PixelNormAct,
)

__all__ = [
    "EvoNormB0",
    "EvoNormB1",
    "EvoNormB2",
    "EvoNormS0",
    "EvoNormS1",
    "EvoNormS2",
    "GraphNormAct",
    "PixelNormAct",
]
