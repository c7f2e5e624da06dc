"""torchvision's Mask R-CNN with the widths of our recipe, and its step: the baseline of `detection_speed`.

Anchors, matching, samples, suppression, RoIAlign and the losses are torchvision's, and so are the residual
blocks, the convolutions of the pyramid and the last layers of the box head. The backbone and the heads are
assembled here of such parts, because torchvision's own have other widths and other norms. A batch norm is at
each place where ours has one, so that every part has as many parameters as ours.
Source: He et al. 2017 (arXiv 1703.06870).

B batch, P side of the images, C channels, H height and W width of a map, N regions of all images together, S
side of a pooled region, L levels, R anchors at a place, K classes with background, M objects of an image, F
width of the last fully connected layer.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.resnet import BasicBlock
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

Target = dict[str, torch.Tensor]
VERSIONS = {"torch": torch.__version__, "torchvision": torchvision.__version__}
_B2 = 0.999  # decay of the mean square in AdamW, that of ours


class Architecture(NamedTuple):
    """The sizes of a detector."""

    stem: int  # channels of the first convolution
    stages: Sequence[tuple[int, int, int]]  # channels, blocks and stride of each stage, one for each level
    features: int  # channels of the pyramid
    outputs: int  # K
    box_convs: Sequence[int]  # channels of the 3x3 convolutions of the box head
    box_dense: Sequence[int]  # widths of its fully connected layers, at least one
    mask_convs: Sequence[int]  # channels of the 3x3 convolutions of the mask head
    mask_features: int  # channels of its transposed convolution
    anchor_sides: Sequence[float]  # side of a square anchor at each level, in pixels
    anchor_ratios: Sequence[float]  # height over width
    bins: tuple[int, int]  # S of the box head and of the mask head
    sampling_ratio: int  # samples of a bin along each axis
    canonical_side: float  # side in pixels of a region that belongs to level 4


def _unit(inputs: int, outputs: int, *, stride: int = 1, bias: bool = True) -> list[nn.Module]:
    """A 3x3 convolution, batch norm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _units(inputs: int, widths: Sequence[int]) -> list[nn.Module]:
    """Units of the given widths, one after the other."""
    layers = []
    for width in widths:
        layers += _unit(inputs, width)
        inputs = width
    return layers


class Backbone(nn.Module):
    """A ResNet of basic blocks with a pyramid on all its stages, and a batch norm on each level."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.out_channels = architecture.features  # a field that `MaskRCNN` reads
        self.stem = nn.Sequential(*_unit(3, architecture.stem, stride=2, bias=False))
        self.stages, inputs = nn.ModuleList(), architecture.stem
        for width, blocks, stride in architecture.stages:
            self.stages.append(_stage(inputs, width, blocks, stride))
            inputs = width
        widths = [width for width, _, _ in architecture.stages]
        self.pyramid = FeaturePyramidNetwork(widths, architecture.features)
        self.norms = nn.ModuleList(nn.BatchNorm2d(architecture.features) for _ in widths)

    def forward(self, images: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        """Maps `[B, 3, P, P]` to maps `[B, C, H, W]` by the number of the stage as text."""
        x, maps = self.stem(images), OrderedDict()
        for number, stage in enumerate(self.stages):
            x = maps[str(number)] = stage(x)
        found = self.pyramid(maps)
        return OrderedDict((name, self.norms[int(name)](x)) for name, x in found.items())


def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    """Basic blocks, of which the first has the stride and a projection of its input."""
    conv = nn.Conv2d(inputs, width, 1, stride, bias=False)
    first = BasicBlock(inputs, width, stride, nn.Sequential(conv, nn.BatchNorm2d(width)))
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))


class ProposalHead(nn.Module):
    """A 3x3 convolution that all levels share, a batch norm for each level, ReLU, scores and codes."""

    def __init__(self, features: int, anchors: int, levels: int):
        super().__init__()
        self.conv = nn.Conv2d(features, features, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(features) for _ in range(levels))
        self.score = nn.Conv2d(features, anchors, 1)
        self.code = nn.Conv2d(features, 4 * anchors, 1)
        for layer in (self.conv, self.score, self.code):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Maps L maps `[B, C, H, W]` to logits `[B, R, H, W]` and codes `[B, 4R, H, W]` of each level."""
        hidden = [F.relu(norm(self.conv(x))) for norm, x in zip(self.norms, maps, strict=True)]
        return [self.score(x) for x in hidden], [self.code(x) for x in hidden]


def _box_head(architecture: Architecture) -> nn.Sequential:
    """Pooled features `[N, C, S, S]` to `[N, F]`."""
    layers = [*_units(architecture.features, architecture.box_convs), nn.Flatten()]
    channels = (architecture.features, *architecture.box_convs)[-1]
    inputs = channels * architecture.bins[0] ** 2
    for width in architecture.box_dense:
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers)


def _mask_predictor(architecture: Architecture) -> nn.Sequential:
    """Features `[N, C, S, S]` to mask logits `[N, K, 2S, 2S]`."""
    inputs, features = (architecture.features, *architecture.mask_convs)[-1], architecture.mask_features
    up = nn.ConvTranspose2d(inputs, features, 2, 2)
    last = nn.Conv2d(features, architecture.outputs, 1)
    return nn.Sequential(up, nn.BatchNorm2d(features), nn.ReLU(inplace=True), last)


def make_mask_rcnn(architecture: Architecture, side: int, selection: Mapping[str, Any]) -> MaskRCNN:
    """torchvision's detector of an architecture, in training mode.

    Args:
      architecture: sizes of the detector.
      side: P. Images are not resized.
      selection: numbers of proposals and samples, keywords of `MaskRCNN`.
    """
    levels, ratios = len(architecture.stages), tuple(architecture.anchor_ratios)
    names = [str(number) for number in range(levels)]
    box_pool, mask_pool = (
        MultiScaleRoIAlign(
            names, bins, architecture.sampling_ratio, canonical_scale=architecture.canonical_side
        )
        for bins in architecture.bins
    )
    sides = tuple((anchor,) for anchor in architecture.anchor_sides)
    return MaskRCNN(
        Backbone(architecture),
        min_size=side,
        max_size=side,
        rpn_anchor_generator=AnchorGenerator(sides, (ratios,) * levels),
        rpn_head=ProposalHead(architecture.features, len(ratios), levels),
        box_roi_pool=box_pool,
        box_head=_box_head(architecture),
        box_predictor=FastRCNNPredictor(architecture.box_dense[-1], architecture.outputs),
        mask_roi_pool=mask_pool,
        mask_head=nn.Sequential(*_units(architecture.features, architecture.mask_convs)),
        mask_predictor=_mask_predictor(architecture),
        _skip_resize=True,
        **selection,
    )


def count_parameters(detector: MaskRCNN) -> dict[str, int]:
    """The number of trained values of each part, by the names of the parts of ours."""
    backbone, heads = detector.backbone, detector.roi_heads
    parts = {
        "backbone": (backbone.stem, backbone.stages),
        "pyramid": (backbone.pyramid, backbone.norms),
        "proposal_head": (detector.rpn.head,),
        "box_head": (heads.box_head, heads.box_predictor),
        "mask_head": (heads.mask_head, heads.mask_predictor),
    }
    return {
        name: sum(values.numel() for module in modules for values in module.parameters())
        for name, modules in parts.items()
    }


class Training:
    """A detector with its optimizer: AdamW with a linear warm-up, a constant rate and clipped gradients.

    Args:
      detector: detector in training mode.
      rate: learning rate after the warm-up.
      momentum: decay of the mean gradient in AdamW.
      weight_decay: factor of AdamW for kernels, without norms and biases.
      warmup_steps: number of steps to the full rate, at least 1.
      clip_norm: largest norm of the gradient.
    """

    def __init__(
        self,
        detector: MaskRCNN,
        *,
        rate: float,
        momentum: float,
        weight_decay: float,
        warmup_steps: int,
        clip_norm: float,
    ):
        self._detector, self._clip_norm = detector, clip_norm
        self._parameters = list(detector.parameters())
        groups = [
            {"params": [p for p in self._parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in self._parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        # fused: one call for all parameters, in place of several calls for each.
        self._optimizer = torch.optim.AdamW(groups, rate, (momentum, _B2), fused=True)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: min(1.0, (step + 1) / warmup_steps)
        )

    def step(self, images: torch.Tensor, targets: Sequence[Target]) -> dict[str, torch.Tensor]:
        """One update, by the sum of the five losses.

        Args:
          images: uint8 `[B, 3, P, P]`.
          targets: objects of each image, as `make_target` makes them.

        Returns:
          The losses by torchvision's names, scalars.
        """
        losses = self._detector(list(images.float() / 255), list(targets))
        self._optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self._optimizer.step()
        self._schedule.step()
        return {name: loss.detach() for name, loss in losses.items()}


def make_target(boxes: Any, classes: Any, masks: Any) -> Target:
    """The objects of an image, as torchvision expects them.

    Args:
      boxes: float array `[M, 4]`, (y0, x0, y1, x1) in pixels, with sides above 0.
      classes: int array `[M]`, from 1 to K - 1.
      masks: array `[M, P, P]` of 0 and 1, on the whole image.
    """
    return {
        "boxes": torch.as_tensor(boxes, dtype=torch.float32)[:, [1, 0, 3, 2]],
        "labels": torch.as_tensor(classes, dtype=torch.int64),
        "masks": torch.as_tensor(masks, dtype=torch.uint8),
    }
