"""Generator and discriminator of BigGAN and BigGAN-deep, for any normalization-activation layer.

Brock et al. 2019 (arXiv 1809.11096), appendix B. The layer is that of the generator, at every site of a block
with a class-conditional scale and bias, and once before the last convolution. The discriminator has no such
layer.

B batch, P side of the images, C their channels, Z size of a latent, K classes, E size of an embedding.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from evonorms_jax.errors import UserError
from evonorms_jax.gan import blocks
from evonorms_jax.gan.layouts import BlockLayout, get_layout, parse
from evonorms_jax.gan.spectral import Embed, SpectralConv, SpectralDense, SpectralEmbed
from evonorms_jax.models.classifier import NormActConstructor


class Generator(nn.Module):
    """Latents and labels to images from -1 to 1.

    The deep form gives the whole latent and the embedded label to every block. The plain one cuts the latent
    into equal parts: the first becomes the bottom map, and each further one belongs to a block.
    """

    norm_act: NormActConstructor
    layout: Sequence[BlockLayout]  # bottom map and blocks
    deep: bool
    width: int  # of which channel counts are multiples
    bottom: int  # side of the bottom map
    num_classes: int  # K
    channels: int  # C
    latent: int  # Z
    embedding: int  # E
    embedding_scale: float = 1.0  # largest singular value of the class table at the start
    # Whether the last convolution has `width` outputs, of which C are kept, as in the released networks. On
    # a TPU it costs no more.
    wide_output: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, labels: jax.Array, *, train: bool) -> jax.Array:
        """Maps z `[B, Z]` and labels int `[B]`, or weights of the classes `[B, K]`, to `[B, P, P, C]`."""
        table = Embed(self.num_classes, self.embedding, self.embedding_scale, name="embed")
        first, conditions = self._conditions(z, table(labels))
        bottom, *layout = map(BlockLayout._make, self.layout)
        shape = (self.bottom, self.bottom, bottom.channels * self.width)
        x = SpectralDense(shape[0] * shape[1] * shape[2], dtype=self.dtype, name="bottom")(first)
        x = x.reshape(-1, *shape)
        block = blocks.DeepGeneratorBlock if self.deep else blocks.GeneratorBlock
        for number, (one, condition) in enumerate(zip(layout, conditions, strict=True), 1):
            features = one.channels * self.width
            make = block(self.norm_act, features, one.resample, self.dtype, name=f"block_{number}")
            x = make(x, condition, train=train)
            if one.attention:
                x = blocks.Attention(self.dtype, name="attention")(x)
        x = self.norm_act(use_running_average=not train, dtype=self.dtype, name="norm_final")(x)
        outputs = max(self.width, self.channels) if self.wide_output else self.channels
        x = SpectralConv(outputs, 3, dtype=self.dtype, name="image")(x)
        return jnp.tanh(x[..., : self.channels].astype(jnp.float32))

    def _conditions(self, z, embedded):
        """The input of the bottom map, and the condition of each block."""
        count = len(self.layout) - 1
        if self.deep:
            condition = jnp.concatenate([z, embedded], -1)
            return condition, [condition] * count
        first, *rest = jnp.split(z, count + 1, -1)
        return first, [jnp.concatenate([part, embedded], -1) for part in rest]


class Discriminator(nn.Module):
    """Images and labels to logits: `linear(h) + <h, V[label]>` of features h summed over space."""

    layout: Sequence[BlockLayout]
    deep: bool
    width: int  # of which channel counts are multiples
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        """Maps images `[B, P, P, C]` and labels int `[B]` to logits `[B]`, float32."""
        layout = [BlockLayout._make(one) for one in self.layout]
        x = x.astype(self.dtype)
        if self.deep:
            stem, *layout = layout
            x = SpectralConv(stem.channels * self.width, 3, dtype=self.dtype, name="stem")(x)
        block = blocks.DeepDiscriminatorBlock if self.deep else blocks.DiscriminatorBlock
        for number, one in enumerate(layout, 1):
            first = number == 1 and not self.deep
            features = one.channels * self.width
            x = block(features, one.resample, first, self.dtype, name=f"block_{number}")(x)
            if one.attention:
                x = blocks.Attention(self.dtype, name="attention")(x)
        features = jnp.sum(nn.relu(x).astype(jnp.float32), (1, 2))
        table = SpectralEmbed(self.num_classes, features.shape[-1], name="classes")(labels)
        logits = SpectralDense(1, dtype=jnp.float32, name="logit")(features)
        return logits[:, 0] + jnp.sum(features * table, -1)


class Networks(NamedTuple):
    """A generator and its discriminator."""

    generator: Generator
    discriminator: Discriminator


def make_networks(
    name: str,
    *,
    size: int,
    norm_act: NormActConstructor,
    num_classes: int,
    channels: int,
    dtype: Any = jnp.float32,
    width: int | None = None,
    latent: int | None = None,
    embedding: int = 128,
    embedding_scale: float = 1.0,
    wide_output: bool = False,
) -> Networks:
    """The networks of `config.networks`.

    Args:
      name: "biggan" or "biggan_deep".
      size: side of the images, one of `layouts.LAYOUTS`.
      norm_act: layer of the generator.
      num_classes: number of classes.
      channels: channels of the images.
      dtype: dtype of the activations. Parameters, statistics, features after the sum and logits are float32.
      width: channels of which all counts are multiples, by default those of the layout.
      latent: size of a latent, by default that of the layout.
      embedding: size of an embedded label.
      embedding_scale: largest singular value of the table of embedded labels at the start. With few classes
        the root of `embedding` makes its elements as large as those of a latent.
      wide_output: see `Generator`.

    Raises:
      ValueError: if the name is unknown, the blocks do not reach the size, or a width does not fit.
    """
    layout = get_layout(name, size)
    width, latent = width or layout.width, latent or layout.latent
    deep = name == "biggan_deep"
    generator, discriminator = parse(layout.generator), parse(layout.discriminator)
    if not deep and latent % len(generator):
        raise UserError(
            f"networks.latent must be a multiple of {len(generator)}, the blocks of {name} at {size} and 1 "
            f"more, got {latent}"
        )
    # Bottlenecks have a quarter of a block's channels, and attention an eighth.
    least = min(one.channels * width // (8 if one.attention else 4) for one in (*generator, *discriminator))
    if least < 1:
        raise UserError(f"networks.width must be larger for {name} at {size}, got {width}")
    shared = {"deep": deep, "width": width, "num_classes": num_classes, "dtype": dtype}
    return Networks(
        Generator(
            norm_act,
            generator,
            bottom=layout.bottom,
            channels=channels,
            latent=latent,
            embedding=embedding,
            embedding_scale=embedding_scale,
            wide_output=wide_output,
            **shared,
        ),
        Discriminator(discriminator, **shared),
    )
