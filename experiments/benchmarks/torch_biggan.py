"""BigGAN, BigGAN-deep and their training step in plain PyTorch, the baseline of `gan_speed`.

Written from the description of Brock et al. 2019 (arXiv 1809.11096), section 3 and appendix B, with the
modules that PyTorch has for each part. Resampling precedes or follows the 1x1 convolution of a shortcut as
described there. Ours moves it to the cheaper side, with equal values. Attention is left out, since the
networks for digits do not use it. Modules have the names of their counterparts in `evonorms_jax/gan/`.

B batch, H height and W width of a map, P side of the images, C channels, Z size of a latent, K classes, E
size of an embedding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

_BOTTLENECK = 4  # channels into or out of a deep block for each channel of its 3x3 convolutions


class Block(NamedTuple):
    """One block of a network."""

    channels: int  # of the output
    resample: bool  # whether it doubles the sides, of a generator, or halves them, of a discriminator


def _normalized(module: nn.Module) -> nn.Module:
    """The module, orthogonal at the start, with spectral normalization by one power iteration a call."""
    nn.init.orthogonal_(module.weight)
    if getattr(module, "bias", None) is not None:
        nn.init.zeros_(module.bias)
    return spectral_norm(module)


def _conv(inputs: int, outputs: int, size: int) -> nn.Module:
    return _normalized(nn.Conv2d(inputs, outputs, size, padding=size // 2))


def _dense(inputs: int, outputs: int, bias: bool = True) -> nn.Module:
    return _normalized(nn.Linear(inputs, outputs, bias))


class ConditionalBatchNormRelu(nn.Module):
    """`relu((1 + Wg c) * n(x) + Wb c)` of a condition c, n the normalization by the moments of the batch."""

    def __init__(self, channels: int, condition: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = _dense(condition, channels, bias=False)
        self.bias = _dense(condition, channels, bias=False)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Maps x `[B, C, H, W]` and the condition `[B, Z]` to the shape of x."""
        scale, bias = (each(condition)[:, :, None, None] for each in (self.scale, self.bias))
        return F.relu((1 + scale) * self.norm(x) + bias)


class GeneratorBlock(nn.Module):
    """Two 3x3 convolutions, each after a layer, and a 1x1 convolution around them."""

    def __init__(self, inputs: int, block: Block, condition: int):
        super().__init__()
        outputs, self.up = block
        self.norm_1 = ConditionalBatchNormRelu(inputs, condition)
        self.conv_1 = _conv(inputs, outputs, 3)
        self.norm_2 = ConditionalBatchNormRelu(outputs, condition)
        self.conv_2 = _conv(outputs, outputs, 3)
        self.shortcut = _conv(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Maps x `[B, C, H, W]` to `[B, outputs, (2) H, (2) W]`."""
        y = self.norm_1(x, condition)
        if self.up:
            x, y = (F.interpolate(each, scale_factor=2, mode="nearest") for each in (x, y))
        y = self.conv_2(self.norm_2(self.conv_1(y), condition))
        return self.shortcut(x) + y


class DeepGeneratorBlock(nn.Module):
    """Two 3x3 convolutions between two 1x1, each after a layer. The shortcut keeps the first channels."""

    def __init__(self, inputs: int, block: Block, condition: int):
        super().__init__()
        self.outputs, self.up = block
        hidden = inputs // _BOTTLENECK
        self.norm_1 = ConditionalBatchNormRelu(inputs, condition)
        self.conv_1 = _conv(inputs, hidden, 1)
        self.norm_2 = ConditionalBatchNormRelu(hidden, condition)
        self.conv_2 = _conv(hidden, hidden, 3)
        self.norm_3 = ConditionalBatchNormRelu(hidden, condition)
        self.conv_3 = _conv(hidden, hidden, 3)
        self.norm_4 = ConditionalBatchNormRelu(hidden, condition)
        self.conv_4 = _conv(hidden, self.outputs, 1)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Maps x `[B, C, H, W]` to `[B, outputs, (2) H, (2) W]`, with outputs at most C."""
        y = self.conv_1(self.norm_1(x, condition))
        x, y = x[:, : self.outputs], self.norm_2(y, condition)
        if self.up:
            x, y = (F.interpolate(each, scale_factor=2, mode="nearest") for each in (x, y))
        y = self.conv_3(self.norm_3(self.conv_2(y), condition))
        return x + self.conv_4(self.norm_4(y, condition))


class Generator(nn.Module):
    """Latents and labels to images from -1 to 1.

    The deep form gives the whole latent and the embedded label to every block. The plain one cuts the latent
    into equal parts: the first becomes the bottom map, and each further one belongs to a block.

    Args:
      deep: whether the blocks are those of BigGAN-deep.
      side: side of the bottom map.
      bottom: channels of the bottom map.
      blocks: the blocks in their order.
      channels: C.
      num_classes: K.
      latent: Z.
      embedding: E.
      embedding_scale: largest singular value of the class table at the start.
    """

    def __init__(
        self,
        *,
        deep: bool,
        side: int,
        bottom: int,
        blocks: Sequence[Block],
        channels: int,
        num_classes: int,
        latent: int,
        embedding: int,
        embedding_scale: float,
    ):
        super().__init__()
        self.deep, self.side, self.latent, self.num_classes = deep, side, latent, num_classes
        self.parts = 1 if deep else len(blocks) + 1
        condition = latent // self.parts + embedding
        self.embed = nn.Embedding(num_classes, embedding)
        nn.init.orthogonal_(self.embed.weight, embedding_scale)
        self.bottom = _dense(condition if deep else latent // self.parts, bottom * side**2)
        make = DeepGeneratorBlock if deep else GeneratorBlock
        inputs = [bottom, *(block.channels for block in blocks)]
        self.blocks = nn.ModuleList(map(make, inputs, blocks, [condition] * len(blocks)))
        self.norm_final = nn.BatchNorm2d(inputs[-1])
        self.image = _conv(inputs[-1], channels, 3)

    def forward(self, z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Maps z `[B, Z]` and labels int `[B]` to `[B, C, P, P]`."""
        embedded = self.embed(labels)
        if self.deep:
            first = torch.cat([z, embedded], 1)
            conditions = [first] * len(self.blocks)
        else:
            first, *rest = z.chunk(self.parts, 1)
            conditions = [torch.cat([part, embedded], 1) for part in rest]
        x = self.bottom(first).view(len(z), -1, self.side, self.side)
        for block, condition in zip(self.blocks, conditions, strict=True):
            x = block(x, condition)
        return torch.tanh(self.image(F.relu(self.norm_final(x))))


class DiscriminatorBlock(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, which the image at the first block does without."""

    def __init__(self, inputs: int, block: Block, first: bool):
        super().__init__()
        outputs, self.down = block
        self.first = first
        self.conv_1 = _conv(inputs, outputs, 3)
        self.conv_2 = _conv(outputs, outputs, 3)
        self.shortcut = _conv(inputs, outputs, 1) if self.down or inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps x `[B, C, H, W]` to `[B, outputs, H (/ 2), W (/ 2)]`."""
        y = self.conv_2(F.relu(self.conv_1(x if self.first else F.relu(x))))
        y = self.shortcut(x) + y
        return F.avg_pool2d(y, 2) if self.down else y


class DeepDiscriminatorBlock(nn.Module):
    """Two 3x3 convolutions between two 1x1, each after a ReLU. A 1x1 convolution adds missing channels."""

    def __init__(self, inputs: int, block: Block):
        super().__init__()
        outputs, self.down = block
        hidden = outputs // _BOTTLENECK
        self.conv_1 = _conv(inputs, hidden, 1)
        self.conv_2 = _conv(hidden, hidden, 3)
        self.conv_3 = _conv(hidden, hidden, 3)
        self.conv_4 = _conv(hidden, outputs, 1)
        self.shortcut = _conv(inputs, outputs - inputs, 1) if outputs > inputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps x `[B, C, H, W]` to `[B, outputs, H (/ 2), W (/ 2)]`, with outputs at least C."""
        y = self.conv_2(F.relu(self.conv_1(F.relu(x))))
        y = F.relu(self.conv_3(F.relu(y)))
        if self.down:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        if self.shortcut is not None:
            x = torch.cat([x, self.shortcut(x)], 1)
        return x + self.conv_4(y)


class Discriminator(nn.Module):
    """Images and labels to logits: `linear(h) + <h, V[label]>` of features h summed over space.

    Args:
      deep: whether the blocks are those of BigGAN-deep.
      stem: channels of the first convolution of the deep form, or None for the plain one.
      blocks: the blocks in their order.
      channels: C.
      num_classes: K.
    """

    def __init__(
        self, *, deep: bool, stem: int | None, blocks: Sequence[Block], channels: int, num_classes: int
    ):
        super().__init__()
        outputs = [block.channels for block in blocks]
        if deep:
            self.stem = _conv(channels, stem, 3)
            self.blocks = nn.ModuleList(map(DeepDiscriminatorBlock, [stem, *outputs], blocks))
        else:
            first = [number == 0 for number in range(len(blocks))]
            self.stem = nn.Identity()
            self.blocks = nn.ModuleList(map(DiscriminatorBlock, [channels, *outputs], blocks, first))
        self.classes = _normalized(nn.Embedding(num_classes, outputs[-1]))
        self.logit = _dense(outputs[-1], 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Maps images `[B, C, P, P]` and labels int `[B]` to logits `[B]`."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        features = F.relu(x).sum((2, 3))
        return self.logit(features)[:, 0] + (features * self.classes(labels)).sum(1)


class Training:
    """Both networks with their optimizers and the moving average of the generator.

    Args:
      generator: network that is averaged.
      discriminator: network that judges the images.
      generator_rate: learning rate of the generator.
      discriminator_rate: learning rate of the discriminator.
      betas: decays of the moments of Adam.
      epsilon: guard of Adam.
      decay: decay of the moving average.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *,
        generator_rate: float,
        discriminator_rate: float,
        betas: tuple[float, float],
        epsilon: float,
        decay: float,
    ):
        self.generator, self.discriminator = generator, discriminator
        self._average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(decay))
        # fused: one call for all parameters, in place of several calls for each.
        shared = {"betas": betas, "eps": epsilon, "fused": True}
        self._of_generator = torch.optim.Adam(generator.parameters(), generator_rate, **shared)
        self._of_discriminator = torch.optim.Adam(discriminator.parameters(), discriminator_rate, **shared)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One update of the discriminator and one of the generator, by the hinge loss.

        Args:
          images: real images uint8 `[B, C, P, P]`.
          labels: their classes int64 `[B]`.

        Returns:
          The losses of the discriminator and of the generator, scalars.
        """
        count = len(images)
        self.discriminator.requires_grad_(True)
        with torch.no_grad():
            fake, fake_labels = self._generate(count)
        real = images.float() / 127.5 - 1
        logits = self.discriminator(torch.cat([fake, real]), torch.cat([fake_labels, labels]))
        of_fake, of_real = logits.split(count)
        discriminator_loss = F.relu(1 - of_real).mean() + F.relu(1 + of_fake).mean()
        _descend(self._of_discriminator, discriminator_loss)

        self.discriminator.requires_grad_(False)
        generator_loss = -self.discriminator(*self._generate(count)).mean()
        _descend(self._of_generator, generator_loss)
        self._average.update_parameters(self.generator)
        return discriminator_loss.detach(), generator_loss.detach()

    def _generate(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images of fresh latents, and their labels, uniform over the classes."""
        labels = torch.randint(self.generator.num_classes, (count,))
        return self.generator(torch.randn(count, self.generator.latent), labels), labels


def _descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def count_parameters(network: nn.Module) -> int:
    """The number of trained values."""
    return sum(parameter.numel() for parameter in network.parameters())
