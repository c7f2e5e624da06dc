"""The registry of networks: small anchors on which a search judges a candidate, and the full-size models.

A network is plain data, so a new one is one entry of `ANCHORS` or `MODELS`. Images are `[B, H, W, C]`.
`operations` counts the cost of a network.
"""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from evonorms_jax.errors import UserError
from evonorms_jax.models import mobile_networks, regnetz, resnet, token_mixers, vision_transformer
from evonorms_jax.models.classifier import NormActConstructor
from evonorms_jax.models.inverted_bottleneck import InvertedBottleneckNet, InvertedStage
from evonorms_jax.models.resnet import ResNet, ResNetStage


class Network(NamedTuple):
    """A network by name, without its normalization-activation layer and its number of classes."""

    name: str
    description: str
    constructor: Callable[..., nn.Module]  # its keywords are the module's fields

    @property
    def fields(self) -> list[str]:
        """Names of the fields that `build` may override."""
        set_elsewhere = ("norm_act", "num_classes", "parent", "name")
        return [f for f in inspect.signature(self.constructor).parameters if f not in set_elsewhere]

    def build(self, norm_act: NormActConstructor, num_classes: int, **overrides) -> nn.Module:
        """The module with the layer `norm_act` injected; `overrides` replace fields, such as `width=0.5`.

        Raises `ValueError` if an override is not a field of the network.
        """
        for name in overrides:
            if name not in self.fields:
                raise UserError(_unknown(f"field of {self.name}", name, self.fields))
        return self.constructor(norm_act=norm_act, num_classes=num_classes, **overrides)


def _at_cifar_resolution(constructor, width):
    """`constructor` with the first two convolutions that reduce the resolution at stride 1.

    All else is unchanged, including ResNet's max-pool. A projection shortcut follows the stride of its block.
    Dropout and drop-connect are off, since they belong to the long ImageNet recipes.
    """
    fields = inspect.signature(constructor).parameters
    stages = fields["stages"].default
    strides = [fields["stem_stride"].default, *(stage.stride for stage in stages)]
    reducing = [i for i, stride in enumerate(strides) if stride > 1]
    for i in reducing[:2]:
        strides[i] = 1
    stages = tuple(s._replace(stride=n) for s, n in zip(stages, strides[1:], strict=True))
    rates = {name: 0.0 for name in ("dropout_rate", "drop_connect_rate") if name in fields}
    return functools.partial(constructor, width=width, stem_stride=strides[0], stages=stages, **rates)


# For images of about 12x12: 6x6 feature maps and few sites, since each site costs time on a CPU.
_SmallResNet = functools.partial(ResNet, stem_kernel=3, stem_stride=1)
_SmallMobileNet = functools.partial(InvertedBottleneckNet, stem_features=24, head_features=64)
_NarrowMobileNet = functools.partial(InvertedBottleneckNet, stem_features=16, head_features=64)


_TOKENS = {"features": 48, "depth": 4, "patch": 4, "scan_blocks": True}
_NARROW_TOKENS = {"features": 24, "patch": 6, "scan_blocks": True}
_MEAN_TOKEN = {"grid": None, "class_token": False}  # with fixed positions


def _by_name(*anchors):
    return {anchor.name: anchor for anchor in anchors}


#: The networks of the proxy task: the paper's for CIFAR-10, and small ones for two CPU cores.
ANCHORS = _by_name(
    Network(
        "resnet50_cifar",
        "pre-activation ResNet-50 at width 0.25, for 24x24 to 32x32 images",
        _at_cifar_resolution(resnet.ResNet50, width=0.25),
    ),
    Network(
        "mobilenet_v2_cifar",
        "MobileNetV2 at width 0.5, for 24x24 to 32x32 images",
        _at_cifar_resolution(mobile_networks.MobileNetV2, width=0.5),
    ),
    Network(
        "efficientnet_b0_cifar",
        "EfficientNet-B0 at width 0.5, for 24x24 to 32x32 images",
        _at_cifar_resolution(mobile_networks.EfficientNetB0, width=0.5),
    ),
    Network(
        "resnet_small",
        "two pre-activation bottleneck blocks, one with the identity; 7 sites",
        functools.partial(
            _SmallResNet, stages=(ResNetStage(width=16, blocks=2, stride=1),), stem_features=24
        ),
    ),
    Network(
        "resnet_tiny",
        "one pre-activation bottleneck block, for tests and quick forms; 4 sites",
        functools.partial(_SmallResNet, stages=(ResNetStage(width=8, blocks=1, stride=1),), stem_features=8),
    ),
    Network(
        "mobilenet_small",
        "two inverted bottlenecks, one with the identity; 6 sites and 2 affine ones",
        functools.partial(
            _SmallMobileNet,
            stages=(
                InvertedStage(features=24, blocks=1, stride=1, expansion=2, kernel=3),
                InvertedStage(features=32, blocks=1, stride=2, expansion=2, kernel=3),
            ),
        ),
    ),
    Network(
        "efficientnet_small",
        "two inverted bottlenecks with squeeze-excite; 6 sites and 2 affine ones",
        functools.partial(
            _SmallMobileNet,
            stages=(
                InvertedStage(features=24, blocks=1, stride=1, expansion=2, kernel=5, squeeze=0.25),
                InvertedStage(features=32, blocks=1, stride=2, expansion=2, kernel=3, squeeze=0.25),
            ),
            shrink_head=True,
        ),
    ),
    # Narrower than the small ones, and at one resolution: their accuracies differ less from seed to seed.
    Network(
        "mobilenet_narrow",
        "two inverted bottlenecks with the identity; 6 sites and 2 affine ones",
        functools.partial(
            _NarrowMobileNet,
            stages=(InvertedStage(features=16, blocks=2, stride=1, expansion=2, kernel=3),),
        ),
    ),
    Network(
        "efficientnet_narrow",
        "two inverted bottlenecks with the identity and squeeze-excite; 6 sites and 2 affine ones",
        functools.partial(
            _NarrowMobileNet,
            stages=(InvertedStage(features=16, blocks=2, stride=1, expansion=2, kernel=3, squeeze=0.25),),
            shrink_head=True,
        ),
    ),
    # The next two are for scores on a network that took no part in a search.
    Network(
        "mnasnet_narrow",
        "two inverted bottlenecks with the identity, one with squeeze-excite; 6 sites and 2 affine ones",
        functools.partial(
            _NarrowMobileNet,
            stages=(
                InvertedStage(features=16, blocks=1, stride=1, expansion=3, kernel=3),
                InvertedStage(features=16, blocks=1, stride=1, expansion=3, kernel=5, squeeze=0.25),
            ),
            squeeze_activation=nn.relu,
        ),
    ),
    Network(
        "mnasnet_small",
        "three inverted bottlenecks, two of them 5x5 with squeeze-excite; 8 sites and 3 affine ones",
        functools.partial(
            _SmallMobileNet,
            stages=(
                InvertedStage(features=24, blocks=1, stride=1, expansion=3, kernel=3),
                InvertedStage(features=40, blocks=2, stride=2, expansion=3, kernel=5, squeeze=0.25),
            ),
            squeeze_activation=nn.relu,
        ),
    ),
    # Beyond the paper: token networks for images of about 24x24, such as whole digits.
    Network(
        "vit_digits",
        "ViT of four blocks on 4x4 patches, mean token, three blocks in a loop; 9 norm sites",
        functools.partial(
            vision_transformer.VisionTransformer,
            **(_TOKENS | _MEAN_TOKEN | {"heads": 4}),
        ),
    ),
    Network(
        "mixer_digits",
        "MLP-Mixer of four blocks on 4x4 patches of 24x24 images, three blocks in a loop; 9 norm sites",
        functools.partial(
            token_mixers.MlpMixer, **(_TOKENS | {"grid": 6, "token_hidden": 24, "channel_hidden": 192})
        ),
    ),
    Network(
        "convnext_digits",
        "four ConvNeXt blocks on 4x4 patches, three in a loop; 5 norm sites",
        functools.partial(token_mixers.ConvNext, **(_TOKENS | {"kernel": 3})),
    ),
    # For searches. Without a norm the deep ViT hardly learns. A Mixer does without one.
    Network(
        "vit_narrow",
        "ViT of eight blocks on 6x6 patches, mean token, seven blocks in a loop; 17 norm sites",
        functools.partial(
            vision_transformer.VisionTransformer,
            **(_NARROW_TOKENS | _MEAN_TOKEN | {"depth": 8, "heads": 2}),
        ),
    ),
    Network(
        "mixer_narrow",
        "MLP-Mixer of four blocks on 6x6 patches of 24x24 images, three blocks in a loop; 9 norm sites",
        functools.partial(
            token_mixers.MlpMixer,
            **(_NARROW_TOKENS | {"depth": 4, "grid": 4, "token_hidden": 16, "channel_hidden": 96}),
        ),
    ),
)

#: The full-size models.
MODELS = _by_name(
    Network("resnet50", "pre-activation ResNet-50 for 224x224", resnet.ResNet50),
    Network("resnet101", "pre-activation ResNet-101 for 224x224", resnet.ResNet101),
    Network("mobilenet_v2", "MobileNetV2 for 224x224", mobile_networks.MobileNetV2),
    Network("mnasnet_a1", "MnasNet-A1, with squeeze-excite, for 224x224", mobile_networks.MnasNetA1),
    Network("mnasnet_b1", "MnasNet-B1, without squeeze-excite, for 224x224", mobile_networks.MnasNetB1),
    *(
        Network(
            f"efficientnet_{variant}",
            f"EfficientNet-{variant.upper()} for {scaling.resolution}x{scaling.resolution}",
            mobile_networks.EFFICIENTNETS[variant],
        )
        for variant, scaling in mobile_networks.SCALINGS.items()
    ),
    # Beyond the paper.
    Network("resnet50_d", "pre-activation ResNet-50-D for 224x224, as in timm", resnet.ResNet50D),
    Network("regnetz_c16", "RegNetZ-C16 for 256x256, as in timm", regnetz.RegNetZC16),
    Network("regnetz_d8", "RegNetZ-D8 for 256x256, as in timm", regnetz.RegNetZD8),
    Network("vit_s16", "ViT-S/16 for 224x224", vision_transformer.ViTSmall16),
    Network(
        "vit_s16_plain",
        "ViT-S/16 with fixed positions and the mean token",
        functools.partial(vision_transformer.ViTSmall16, grid=None, class_token=False),
    ),
    Network("vit_b16", "ViT-B/16 for 224x224", vision_transformer.ViTBase16),
)


def get_anchor(name: str) -> Network:
    """The anchor called `name`. Raises `ValueError`, with the nearest name, if there is none."""
    return _look_up(name, ANCHORS, "anchor")


def get_model(name: str) -> Network:
    """The full-size model or the anchor called `name`; errors as `get_anchor`."""
    return _look_up(name, MODELS | ANCHORS, "model")


def build_model(
    name: str, *, norm_act: NormActConstructor, num_classes: int, dtype: Any, **fields: Any
) -> nn.Module:
    """The module of `config.model`, a name and fields. A field that is None keeps the network's own value.

    Raises `ValueError` if the name or a field is unknown.
    """
    overrides = {field: value for field, value in fields.items() if value is not None}
    return get_model(name).build(norm_act, num_classes, dtype=dtype, **overrides)


def _look_up(name, table, kind):
    if name not in table:
        raise UserError(_unknown(kind, name, table))
    return table[name]


def _unknown(kind, name, allowed):
    near = difflib.get_close_matches(name, allowed, 1, cutoff=0.0)[0]
    return f"unknown {kind} {name!r}: did you mean {near!r}? Allowed: {', '.join(allowed)}"


def operations(function: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations of `function(*arguments)`, as XLA counts them before it optimizes.

    The CPU backend counts them, whatever the default backend is, since those of GPUs and TPUs give no count.
    The arguments are pytrees of arrays or `ShapeDtypeStruct`s. Raises `ValueError` if JAX_PLATFORMS leaves
    out the CPU backend.
    """
    try:
        device, *_ = jax.local_devices(backend="cpu")
    except RuntimeError:
        raise UserError(
            "operations are counted on JAX's CPU backend, which JAX_PLATFORMS leaves out: add ',cpu' to it"
        ) from None
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    with jax.default_device(device):
        return jax.jit(function).lower(*shapes).cost_analysis()["flops"]
