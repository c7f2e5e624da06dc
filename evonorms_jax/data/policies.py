"""Augmentation policies for photographs: RandAugment (arXiv 1909.13719) and AutoAugment (arXiv 1805.09501).

A policy is a function from a NumPy generator and an image, uint8 `[H, W, 3]`, to an image of the same shape.
Shears, translations and rotations leave gaps, which are filled with mid-grey.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Policy = Callable[[np.random.Generator, np.ndarray], np.ndarray]

GREY = (128, 128, 128)


# -- Operations: (picture, amount) -> picture; the amount is in units of the operation


def _affine(picture: Image.Image, *coefficients: float) -> Image.Image:
    # (x, y) of the result is (a x + b y + c, d x + e y + f) of the picture.
    bilinear = Image.Resampling.BILINEAR
    return picture.transform(picture.size, Image.Transform.AFFINE, coefficients, bilinear, fillcolor=GREY)


def _rotate(picture: Image.Image, degrees: float) -> Image.Image:
    return picture.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=GREY)


def _posterize(picture: Image.Image, bits: float) -> Image.Image:
    return ImageOps.posterize(picture, int(np.clip(round(bits), 1, 8)))


def _enhance(kind: type) -> Callable[[Image.Image, float], Image.Image]:
    # 1 is the picture itself; a negative factor would invert its colors.
    return lambda picture, factor: kind(picture).enhance(max(0.0, factor))


#: Operations by name. The amount is a slope, a share of the side, degrees counter-clockwise, the bits kept,
#: the grey level from which on pixels are inverted, or the factor of an enhancement. Four ignore it.
OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda picture, _: picture,
    "autocontrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
    "invert": lambda picture, _: ImageOps.invert(picture),
    "shear_x": lambda picture, slope: _affine(picture, 1, slope, 0, 0, 1, 0),
    "shear_y": lambda picture, slope: _affine(picture, 1, 0, 0, slope, 1, 0),
    "translate_x": lambda picture, share: _affine(picture, 1, 0, share * picture.width, 0, 1, 0),
    "translate_y": lambda picture, share: _affine(picture, 1, 0, 0, 0, 1, share * picture.height),
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": lambda picture, level: ImageOps.solarize(picture, level),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
}


# -- Magnitudes: from numbers without units to amounts


class _Span(NamedTuple):
    """Amounts at magnitude 0 and at the largest one; `both_ways`: draw the sign of the change at random."""

    first: float
    last: float
    both_ways: bool = False

    def amount(self, rng: np.random.Generator, share: float) -> float:
        reach = (self.last - self.first) * share
        return self.first + (rng.choice((-1, 1)) * reach if self.both_ways else reach)


_GEOMETRIC = {
    "shear_x": _Span(0, 0.3, both_ways=True),
    "shear_y": _Span(0, 0.3, both_ways=True),
    # 150 pixels of AutoAugment's 331, and 100 of 224 in the released RandAugment.
    "translate_x": _Span(0, 0.45, both_ways=True),
    "translate_y": _Span(0, 0.45, both_ways=True),
    "rotate": _Span(0, 30, both_ways=True),
}
_ENHANCING = ("color", "contrast", "brightness", "sharpness")
_WITHOUT = dict.fromkeys(("identity", "autocontrast", "equalize", "invert"), _Span(0, 0))

# Table 6 of AutoAugment, taken literally, since its policy was found with these amounts: a larger number
# keeps more bits and inverts fewer pixels, and color 0 leaves hardly any color.
_PUBLISHED = {
    **_WITHOUT,
    **_GEOMETRIC,
    **dict.fromkeys(_ENHANCING, _Span(0.1, 1.9)),
    "posterize": _Span(4, 8),
    "solarize": _Span(0, 256),
}
# RandAugment has one magnitude for all operations, so here each one's effect grows with it, from the identity
# at 0. The released code keeps the directions above.
_INCREASING = {
    **_WITHOUT,
    **_GEOMETRIC,
    **dict.fromkeys(_ENHANCING, _Span(1.0, 1.9, both_ways=True)),
    "posterize": _Span(8, 4),
    "solarize": _Span(256, 0),
}


# -- Policies

RANDAUGMENT_OPERATIONS = tuple(name for name in _INCREASING if name != "invert")  # 14, section 3
RANDAUGMENT_SCALE = 10  # the magnitude at which the ranges end; larger ones exceed them
AUTOAUGMENT_SCALE = 9


class RandAugment(NamedTuple):
    """`layers` operations in a row, each one of 14 at random; N and M of the paper.

    The defaults are the paper's for ResNet-50. Its magnitudes for EfficientNet-B5 and B7 are 17 and 28.
    """

    layers: int = 2
    magnitude: float = 9

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Draws operations and directions from `rng`."""
        picture = Image.fromarray(image)
        for index in rng.integers(len(RANDAUGMENT_OPERATIONS), size=self.layers):
            name = RANDAUGMENT_OPERATIONS[index]
            amount = _INCREASING[name].amount(rng, self.magnitude / RANDAUGMENT_SCALE)
            picture = OPERATIONS[name](picture, amount)
        return np.asarray(picture)


class Choice(NamedTuple):
    """An operation of a sub-policy."""

    name: str
    probability: float
    magnitude: int  # 0 to 9


#: Table 9: the sub-policies found on ImageNet, two choices each. Repeated ones count twice.
IMAGENET = (
    (Choice("posterize", 0.4, 8), Choice("rotate", 0.6, 9)),
    (Choice("solarize", 0.6, 5), Choice("autocontrast", 0.6, 5)),
    (Choice("equalize", 0.8, 8), Choice("equalize", 0.6, 3)),
    (Choice("posterize", 0.6, 7), Choice("posterize", 0.6, 6)),
    (Choice("equalize", 0.4, 7), Choice("solarize", 0.2, 4)),
    (Choice("equalize", 0.4, 4), Choice("rotate", 0.8, 8)),
    (Choice("solarize", 0.6, 3), Choice("equalize", 0.6, 7)),
    (Choice("posterize", 0.8, 5), Choice("equalize", 1.0, 2)),
    (Choice("rotate", 0.2, 3), Choice("solarize", 0.6, 8)),
    (Choice("equalize", 0.6, 8), Choice("posterize", 0.4, 6)),
    (Choice("rotate", 0.8, 8), Choice("color", 0.4, 0)),
    (Choice("rotate", 0.4, 9), Choice("equalize", 0.6, 2)),
    (Choice("equalize", 0.0, 7), Choice("equalize", 0.8, 8)),
    (Choice("invert", 0.6, 4), Choice("equalize", 1.0, 8)),
    (Choice("color", 0.6, 4), Choice("contrast", 1.0, 8)),
    (Choice("rotate", 0.8, 8), Choice("color", 1.0, 2)),
    (Choice("color", 0.8, 8), Choice("solarize", 0.8, 7)),
    (Choice("sharpness", 0.4, 7), Choice("invert", 0.6, 8)),
    (Choice("shear_x", 0.6, 5), Choice("equalize", 1.0, 9)),
    (Choice("color", 0.4, 0), Choice("equalize", 0.6, 3)),
    (Choice("equalize", 0.4, 7), Choice("solarize", 0.2, 4)),
    (Choice("solarize", 0.6, 5), Choice("autocontrast", 0.6, 5)),
    (Choice("invert", 0.6, 4), Choice("equalize", 1.0, 8)),
    (Choice("color", 0.6, 4), Choice("contrast", 1.0, 8)),
    (Choice("equalize", 0.8, 8), Choice("equalize", 0.6, 3)),
)


class AutoAugment(NamedTuple):
    """One of the sub-policies at random. Each of its operations has its own probability."""

    sub_policies: tuple[tuple[Choice, ...], ...] = IMAGENET

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Draws the sub-policy, its operations and directions from `rng`."""
        picture = Image.fromarray(image)
        for name, probability, magnitude in self.sub_policies[rng.integers(len(self.sub_policies))]:
            if rng.random() < probability:
                amount = _PUBLISHED[name].amount(rng, magnitude / AUTOAUGMENT_SCALE)
                picture = OPERATIONS[name](picture, amount)
        return np.asarray(picture)
