"""One scene of digits: a ground, fragments of strokes, perhaps a crowd, and digits one over the other.

H height, W width of the scene in pixels. Colours and coverages are from 0 to 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from evonorms_jax.data import ImageSet

SIDES = (96, 112, 128, 144, 160)  # of scenes, drawn independently for height and width
HEIGHTS = (20, 72)  # of upright digits, log-uniform
MOST_DIGITS = 6
ANGLE = 15.0  # degrees, to either side
CONTRAST = 0.25  # least difference of a digit's brightness from its ground
OVERLAP = 0.4  # largest IoU of two boxes
TRIES = 20  # places that are tried for a digit
EMPTY, CROWDED = 0.03, 0.03  # shares of the scenes without an object and with a crowd
CROWD_HEIGHT, CROWD_GRID = 12, 3  # height of the digits of a crowd, which fill a grid
FRAGMENTS = (1, 3)  # number of fragments
THRESHOLD = 0.35  # coverage from which a pixel belongs to the digit
THIN = 32  # height below which a mask is widened by a pixel, since strokes have two or three
_BRIGHTNESS = np.array([0.299, 0.587, 0.114])


class Layer(NamedTuple):
    """One thing that is painted over the ground and the layers before it.

    Attributes:
        mask: its pixels, hidden ones too, bool `[H, W]`.
        label: digit from 0 to 9, or None if it is no object.
        crowd: whether it is a group of digits.
    """

    mask: np.ndarray
    label: int | None
    crowd: bool = False


class Scene(NamedTuple):
    """A painted scene, uint8 `[H, W, 3]`, and its layers from the lowest to the highest."""

    image: np.ndarray
    layers: Sequence[Layer]


class Stamp(NamedTuple):
    """A digit of some size and angle, on its tight rectangle."""

    cover: np.ndarray  # coverage of the ground, float `[h, w]`
    mask: np.ndarray  # bool `[h, w]`


def paint(rng: np.random.Generator, digits: ImageSet) -> Scene:
    """Draws a scene of the given digits."""
    height, width = (int(rng.choice(SIDES)) for _ in range(2))
    painting = _Painting(rng, height, width)
    for _ in range(rng.integers(FRAGMENTS[0], FRAGMENTS[1] + 1)):
        painting.add(fragment(rng, _pick(rng, digits)[0]), None)
    kind = rng.random()
    if kind >= 1 - CROWDED:
        painting.add_crowd(digits)
    if kind >= EMPTY:
        for _ in range(rng.integers(1, MOST_DIGITS + 1)):
            image, label = _pick(rng, digits)
            tall = float(np.exp(rng.uniform(*np.log(HEIGHTS))))
            painting.add(stamp(image, tall, rng.uniform(-ANGLE, ANGLE)), label)
    return painting.scene()


def stamp(image: np.ndarray, height: float, angle: float) -> Stamp:
    """A digit uint8 `[28, 28]` at a height in pixels, turned by an angle in degrees."""
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    tight = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # A frame of zeros, so that the digit fades out at its edge and the wider mask has room.
    framed = np.pad(tight, 1)
    tall, wide = (max(1, round(height * side / tight.shape[0])) for side in framed.shape)
    framed = np.pad(_resized(framed, tall, wide), 1)
    turned = Image.fromarray(framed).rotate(angle, Image.Resampling.BILINEAR, expand=True)
    cover = np.asarray(turned, np.float64)
    cover /= cover.max()
    mask = cover > THRESHOLD
    if height < THIN:
        mask = _widened(mask)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return Stamp(cover[inside], mask[inside])


def fragment(rng: np.random.Generator, image: np.ndarray) -> Stamp:
    """A piece of a digit uint8 `[28, 28]`, a third of its side, at up to twice its size."""
    side = image.shape[0] // 3
    strokes = np.argwhere(image > 128)
    row, column = np.clip(strokes[rng.integers(len(strokes))] - side // 2, 0, image.shape[0] - side)
    piece = image[row : row + side, column : column + side]
    return stamp(piece, side * rng.uniform(1.0, 2.0), rng.uniform(-180, 180))


def _pick(rng: np.random.Generator, digits: ImageSet) -> tuple[np.ndarray, int]:
    number = int(rng.integers(len(digits.labels)))
    return digits.images[number, ..., 0], int(digits.labels[number])


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _widened(mask: np.ndarray) -> np.ndarray:
    """The mask with the four neighbours of its pixels."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    return wide


class _Painting:
    """The canvas of one scene, on which stamps are put at free places."""

    def __init__(self, rng: np.random.Generator, height: int, width: int):
        self._rng = rng
        self._colours = _ground(rng, height, width)
        self._layers: list[Layer] = []
        self._boxes: list[np.ndarray] = []

    def add(self, stamp: Stamp, label: int | None) -> None:
        """Paints a stamp at a random place where no box is overlapped too much, or leaves it out."""
        if (place := self._free_place(stamp.mask.shape)) is not None:
            mask = self._paint(stamp, *place, self._tint(stamp, *place))
            self._layers.append(Layer(mask, label))

    def add_crowd(self, digits: ImageSet) -> None:
        """Paints small digits of one class close to each other, annotated as one region."""
        label = int(self._rng.integers(10))
        images = digits.images[digits.labels == label][..., 0]
        pitch = CROWD_HEIGHT + 2
        if (place := self._free_place((CROWD_GRID * pitch, CROWD_GRID * pitch))) is None:
            return
        region = np.zeros(self._colours.shape[:2], bool)
        for cell in np.ndindex(CROWD_GRID, CROWD_GRID):
            image = images[self._rng.integers(len(images))]
            made = stamp(image, CROWD_HEIGHT, 0.0)
            made = Stamp(made.cover[:pitch, :pitch], made.mask[:pitch, :pitch])
            top, left = (start + pitch * step for start, step in zip(place, cell, strict=True))
            mask = self._paint(made, top, left, self._tint(made, top, left))
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        self._layers.append(Layer(region, label, crowd=True))

    def scene(self) -> Scene:
        """The scene with all that was painted so far."""
        return Scene(np.round(255 * self._colours).astype(np.uint8), self._layers)

    def _free_place(self, size: tuple[int, int]) -> tuple[int, int] | None:
        room = np.subtract(self._colours.shape[:2], size)
        for _ in range(TRIES if min(room) >= 0 else 0):
            top, left = (int(self._rng.integers(most + 1)) for most in room)
            box = np.array([top, left, top + size[0], left + size[1]])
            if all(_overlap(box, other) <= OVERLAP for other in self._boxes):
                self._boxes.append(box)
                return top, left
        return None

    def _tint(self, stamp: Stamp, top: int, left: int) -> np.ndarray:
        """A random colour that is brighter or darker than the ground behind the stamp."""
        height, width = stamp.mask.shape
        ground = self._colours[top : top + height, left : left + width][stamp.mask].mean(0) @ _BRIGHTNESS
        while True:  # at least half of the colours do
            tint = self._rng.uniform(size=3)
            if abs(tint @ _BRIGHTNESS - ground) >= CONTRAST:
                return tint

    def _paint(self, stamp: Stamp, top: int, left: int, tint: np.ndarray) -> np.ndarray:
        """Paints the stamp, and returns its mask on the scene."""
        height, width = stamp.mask.shape
        part = slice(top, top + height), slice(left, left + width)
        cover = stamp.cover[..., None]
        self._colours[part] = (1 - cover) * self._colours[part] + cover * tint
        mask = np.zeros(self._colours.shape[:2], bool)
        mask[part] = stamp.mask
        return mask


def _ground(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A random colour that changes slowly, with noise, float `[H, W, 3]`."""
    coarse = rng.uniform(0.2, 0.8, 3) + rng.uniform(-0.2, 0.2, (3, 3, 3))
    planes = [
        np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC))
        for plane in np.moveaxis(coarse, -1, 0).astype(np.float32)
    ]
    return np.clip(np.stack(planes, -1) + rng.normal(0, 0.03, (height, width, 3)), 0, 1)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    """IoU of two boxes."""
    sides = np.maximum(0, np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]))
    areas = [np.prod(box[2:] - box[:2]) for box in (one, other)]
    return float(np.prod(sides) / (sum(areas) - np.prod(sides)))
