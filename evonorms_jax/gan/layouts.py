"""The networks as data: which blocks follow each other at which width, for every size of an image.

A layout is a text such as `"16 16 16u 16 8u@"`. Each word is a block: its output channels in multiples of the
width, then `u` if it doubles the sides or `d` if it halves them, then `@` if attention follows. The first
word is the map that enters the blocks: of a generator the one that the latent is mapped to, and of a deep
discriminator that of the first convolution. A plain discriminator begins with a block.

Sources: Brock et al. 2019 (arXiv 1809.11096), appendix B, for 128, 256 and 512, with the place of attention
as in the authors' released networks. The publication has no 32 and 64: those are the ones of the authors'
public PyTorch code. 28 is ours, for digits.
"""

import re
from typing import NamedTuple

from evonorms_jax.errors import UserError


class BlockLayout(NamedTuple):
    """A block by its word."""

    channels: int  # of the output, in multiples of the width
    resample: bool  # whether it doubles the sides, of a generator, or halves them, of a discriminator
    attention: bool  # whether attention follows


class Layout(NamedTuple):
    """The two networks for images of one size."""

    bottom: int  # side of the map that the generator starts with
    generator: str
    discriminator: str
    latent: int  # default size of a latent
    width: int  # default width


#: Layouts by kind of network and side of the images.
LAYOUTS: dict[str, dict[int, Layout]] = {
    "biggan": {
        28: Layout(7, "4 4u 2u", "1d 2d 4 4", 48, 16),
        32: Layout(4, "4 4u 4u 4u", "4d 4d 4 4", 128, 96),
        64: Layout(4, "16 16u 8u 4u 2u@", "1d 2d 4d 8d 16", 120, 96),
        128: Layout(4, "16 16u 8u 4u 2u@ 1u", "1d@ 2d 4d 8d 16d 16", 120, 96),
        256: Layout(4, "16 16u 8u 8u 4u 2u@ 1u", "1d 2d@ 4d 8d 8d 16d 16", 140, 96),
        512: Layout(4, "16 16u 8u 8u 4u@ 2u 1u 1u", "1d 1d 2d@ 4d 8d 8d 16d 16", 160, 96),
    },
    "biggan_deep": {
        28: Layout(7, "4 4 2u 2 1u", "1 2d 2 4d 4", 32, 16),
        32: Layout(4, "4 4 4u 4 4u 4 4u", "4 4d 4 4d 4 4 4", 128, 128),
        64: Layout(4, "16 16 16u 16 8u 8 4u 4 2u@", "1 2d 2 4d 4 8d 8 16d 16", 128, 128),
        128: Layout(4, "16 16 16u 16 8u 8 4u 4 2u@ 2 1u", "1 2d 2@ 4d 4 8d 8 16d 16 16d 16", 128, 128),
        256: Layout(
            4,
            "16 16 16u 16 8u 8 8u 8 4u@ 4 2u 2 1u",
            "1 2d 2 4d 4@ 8d 8 8d 8 16d 16 16d 16",
            128,
            128,
        ),
        512: Layout(
            4,
            "16 16 16u 16 8u 8 8u 8 4u@ 4 2u 2 1u 1 1u",
            "1 1d 1 2d 2 4d 4@ 8d 8 8d 8 16d 16 16d 16",
            128,
            128,
        ),
    },
}


def get_layout(name: str, size: int) -> Layout:
    """The layout of a kind of network for images of a side.

    Raises `ValueError` if there is no such kind, or its blocks do not reach the size.
    """
    if name not in LAYOUTS:
        raise UserError(f"unknown networks {name!r}; there are {', '.join(LAYOUTS)}")
    if size not in LAYOUTS[name]:
        sizes = ", ".join(map(str, sorted(LAYOUTS[name])))
        raise UserError(f"the blocks of {name} make images of side {sizes}, not {size}")
    return LAYOUTS[name][size]


def parse(text: str) -> tuple[BlockLayout, ...]:
    """The blocks of a layout's text."""
    words = (re.fullmatch(r"(\d+)([ud]?)(@?)", word).groups() for word in text.split())
    return tuple(BlockLayout(int(channels), bool(resample), bool(at)) for channels, resample, at in words)
