"""The layers as Flax modules, and the constructors that models receive."""

from evonorms_jax.layers.baselines import (
    BatchNormAct,
    FilterResponseNorm,
    GroupNormAct,
    InstanceNormAct,
    LayerNormAct,
    PixelNormAct,
)
from evonorms_jax.layers.linen import (
    EvoNormB0,
    EvoNormB1,
    EvoNormB2,
    EvoNormS0,
    EvoNormS0a,
    EvoNormS1,
    EvoNormS2,
    GraphNormAct,
)
from evonorms_jax.layers.registry import (
    LAYERS,
    LayerConstructor,
    layer_file,
    load_layer,
    norm_act,
    norm_parameters,
)
from evonorms_jax.layers.tokens import ChannelNormAct, DynamicErf, DynamicTanh, NoNormAct, RMSNormAct

__all__ = [
    "LAYERS",
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
    "GraphNormAct",
    "GroupNormAct",
    "InstanceNormAct",
    "LayerConstructor",
    "LayerNormAct",
    "NoNormAct",
    "PixelNormAct",
    "RMSNormAct",
    "layer_file",
    "load_layer",
    "norm_act",
    "norm_parameters",
]
