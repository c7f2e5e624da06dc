"""Evolving Normalization-Activation Layers in JAX: the EvoNorm layers and the search that finds them.

The Linen layers are here, their NNX twins in `evonorms_jax.nnx`. Source: arXiv 2004.02967.
"""

from evonorms_jax.layers import (
    BatchNormAct,
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
    FilterResponseNorm,
    GraphNormAct,
    GroupNormAct,
    InstanceNormAct,
    LayerNormAct,
    NoNormAct,
    PixelNormAct,
    RMSNormAct,
    norm_act,
    norm_parameters,
)
from evonorms_jax.search_space import CATALOG, Graph, compile_graph

__version__ = "0.1.0"

__all__ = [
    "CATALOG",
    "BatchNormAct",
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
    "FilterResponseNorm",
    "Graph",
    "GraphNormAct",
    "GroupNormAct",
    "InstanceNormAct",
    "LayerNormAct",
    "NoNormAct",
    "PixelNormAct",
    "RMSNormAct",
    "compile_graph",
    "norm_act",
    "norm_parameters",
]
