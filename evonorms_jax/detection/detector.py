"""Mask R-CNN as one module: a backbone, a pyramid and three heads, with the layer of each part.

B images, canvas side P, N regions, K outputs with background as the first. He et al. 2017 (arXiv 1703.06870).
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.detection.fpn import FeaturePyramid
from evonorms_jax.detection.heads import BoxHead, MaskHead, ProposalHead
from evonorms_jax.detection.resnet import PyramidResNet
from evonorms_jax.detection.sites import WithoutNorm
from evonorms_jax.detection.spinenet import LEVELS, SpineNet
from evonorms_jax.detection.types import DETECTED_MASK_SIDE
from evonorms_jax.errors import UserError
from evonorms_jax.models.classifier import NormActConstructor
from evonorms_jax.models.resnet import ResNet50, ResNetStage
from evonorms_jax.runs.config_checks import nearest

#: The parts whose norms are chosen, each on its own, by `norm_in`.
PARTS = ("backbone", "fpn", "rpn", "box", "mask")
BOX_BINS, MASK_BINS = 7, DETECTED_MASK_SIDE // 2  # of RoIAlign for the two heads

_ResNet50 = functools.partial(PyramidResNet, stages=ResNet50.keywords["stages"])
_SmallResNet = functools.partial(
    PyramidResNet, block="residual", stem_features=16, stem_kernel=3, stem_pool=False
)
#: Backbones by name. Their keywords are the fields of the module.
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "resnet50_v1": _ResNet50,
    "resnet50_v2": functools.partial(_ResNet50, block="preactivation"),
    "resnet_digits": functools.partial(
        # Coarse maps are cheap, and a large digit is seen there.
        _SmallResNet,
        stages=(ResNetStage(32, 1, 2), ResNetStage(64, 2, 2), ResNetStage(128, 2, 2)),
    ),
    "spinenet49": SpineNet,
    "spinenet96": functools.partial(SpineNet, repeats=2),
    "spinenet143": functools.partial(SpineNet, repeats=3, alpha=1.0),
}


class DetectorSettings(NamedTuple):
    """The architecture. The fields are keys of `config.model`.

    Attributes:
      name: name of the backbone in `BACKBONES`.
      levels: least and largest level of the pyramid. A SpineNet has levels 3 to 7.
      features: channels of the pyramid and of the region proposal network.
      top: source of the levels above the backbone's, see `fpn.TOPS`. A SpineNet ignores it.
      anchor_size: side of a square anchor in strides of its level.
      box_convs: 3x3 convolutions of the box head, with `features` channels.
      box_dense: fully connected layers of the box head.
      box_dense_features: their width.
      mask_convs: 3x3 convolutions of the mask head.
      mask_features: their width.
      norm_in: parts with norms, of `PARTS`. The others have ReLU alone.
      merge_activation: after merging two parents in a SpineNet, "relu" or "norm_act" for the injected layer.
      outputs: number of classes with background, by default those of the data. More may be given.
      remat: whether the backward pass recomputes the stages of the backbone, to save memory.
    """

    name: str
    levels: Sequence[int] = (2, 6)
    features: int = 256
    top: str = "conv"
    anchor_size: float = 8.0
    box_convs: int = 4
    box_dense: int = 1
    box_dense_features: int = 1024
    mask_convs: int = 4
    mask_features: int = 256
    norm_in: Sequence[str] = PARTS
    merge_activation: str = "relu"
    outputs: int | None = None
    remat: bool = False

    def all_levels(self) -> range:
        """All levels of the pyramid."""
        return range(self.levels[0], self.levels[1] + 1)


class MaskRcnn(nn.Module):
    """The parts of a detector. Training and inference call them in turn, see `forward.py`."""

    backbone: nn.Module
    pyramid: nn.Module | None  # None if the backbone is a pyramid
    proposal_head: nn.Module
    box_head: nn.Module
    mask_head: nn.Module
    largest_level: int

    def features(self, images: jax.Array, *, train: bool) -> Mapping[int, jax.Array]:
        """Normalised images `[B, P, P, 3]` to the maps of the pyramid by level."""
        maps = self.backbone(images, train=train)
        return maps if self.pyramid is None else self.pyramid(maps, train=train)

    def proposals(self, maps: Mapping[int, jax.Array], *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Logits `[B, A]` and codes `[B, A, 4]` of all anchors."""
        return self.proposal_head(maps, train=train)

    def boxes(self, pooled: jax.Array, valid: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Pooled features `[B, N, 7, 7, C]` to class logits `[B, N, K]` and codes `[B, N, K, 4]`."""
        return self.box_head(pooled, valid, train=train)

    def masks(self, pooled: jax.Array, valid: jax.Array, classes: jax.Array, *, train: bool) -> jax.Array:
        """Pooled features `[B, N, 14, 14, C]` to mask logits `[B, N, 28, 28]` of the given classes."""
        return self.mask_head(pooled, valid, classes, train=train)

    def __call__(self) -> None:
        """Runs all parts on the smallest inputs, to make their parameters."""
        side = 2**self.largest_level
        maps = self.features(jnp.zeros((1, side, side, 3), jnp.float32), train=False)
        self.proposals(maps, train=False)
        one = maps[self.largest_level]
        valid, classes = jnp.ones((1, 1), bool), jnp.zeros((1, 1), jnp.int32)
        self.boxes(jnp.zeros((1, 1, BOX_BINS, BOX_BINS, one.shape[-1]), one.dtype), valid, train=False)
        pooled = jnp.zeros((1, 1, MASK_BINS, MASK_BINS, one.shape[-1]), one.dtype)
        self.masks(pooled, valid, classes, train=False)


def build_detector(
    settings: DetectorSettings, norm_act: NormActConstructor, outputs: int, dtype: Any
) -> MaskRcnn:
    """The detector of the settings with the layer `norm_act` injected.

    Args:
      settings: the architecture.
      norm_act: constructor of the layer.
      outputs: number K of classes with background that the data need.
      dtype: dtype of the activations.

    Raises:
      ValueError: if a name is unknown, or the levels or outputs do not fit.
    """
    outputs = _outputs(settings, outputs)
    chosen = {part: norm_act if part in settings.norm_in else WithoutNorm() for part in PARTS}
    for part in settings.norm_in:
        if part not in PARTS:
            raise UserError(f"unknown part {part!r} in norm_in{nearest(part, PARTS)}")
    backbone = _backbone(settings, chosen["backbone"], dtype)
    pyramid = None
    if not isinstance(backbone, SpineNet):
        pyramid = FeaturePyramid(
            chosen["fpn"], tuple(settings.levels), settings.features, settings.top, dtype=dtype
        )
    return MaskRcnn(
        backbone,
        pyramid,
        ProposalHead(chosen["rpn"], settings.features, dtype=dtype),
        BoxHead(
            *(chosen["box"], outputs, settings.box_convs, settings.features),
            *(settings.box_dense, settings.box_dense_features, dtype),
        ),
        MaskHead(chosen["mask"], outputs, settings.mask_convs, settings.mask_features, dtype),
        settings.levels[1],
    )


def _outputs(settings: DetectorSettings, needed: int) -> int:
    if settings.outputs is not None and settings.outputs < needed:
        raise UserError(
            f"model.outputs must be at least {needed}, the classes of the data with background, "
            f"got {settings.outputs}"
        )
    return settings.outputs or needed


def _backbone(settings: DetectorSettings, norm_act: NormActConstructor, dtype: Any) -> nn.Module:
    if settings.name not in BACKBONES:
        raise UserError(f"unknown backbone {settings.name!r}{nearest(settings.name, BACKBONES)}")
    make = BACKBONES[settings.name]
    fields = {"norm_act": norm_act, "dtype": dtype, "remat": settings.remat}
    if "merge_activation" in inspect.signature(make).parameters:
        if tuple(settings.levels) != LEVELS:
            raise UserError(f"a SpineNet has levels {LEVELS}, got model.levels={tuple(settings.levels)}")
        fields |= {"features": settings.features, "merge_activation": settings.merge_activation}
    elif settings.merge_activation != "relu":
        raise UserError(
            f"merge_activation is for a SpineNet, and {settings.name} has no merges: it must be relu"
        )
    return make(**fields)
