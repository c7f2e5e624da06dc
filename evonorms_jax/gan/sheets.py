"""Pictures of many samples: a sheet by class, interpolations, and a sweep of the truncation, as PNG.

R rows, S columns, P x P pixels, C channels, K classes, Z size of a latent.
"""

from collections.abc import Mapping

import numpy as np
from etils import epath
from PIL import Image

from evonorms_jax.gan.sampling import Renderer, Sampler
from evonorms_jax.runs.files import write_png

#: Folder of sheets in a work directory.
FOLDER = "sheets"
COLUMNS = 10  # samples of a class
MOST_ROWS = 40  # classes on a sheet, evenly spread over all
_STEPS = 8  # images between the ends of an interpolation
_LEAST_SIDE = 56  # pixels of a sample on a sheet
_GAP = 2  # pixels between samples
_WHITE = 255


def write_sheet(path: epath.Path, images: np.ndarray) -> None:
    """Writes samples uint8 `[R, S, P, P, C]` as one picture, small ones enlarged by whole factors."""
    rows, columns, side, _, channels = images.shape
    factor = -(-_LEAST_SIDE // side)
    images = images.repeat(factor, 2).repeat(factor, 3)
    step = side * factor + _GAP
    sheet = np.full((rows * step - _GAP, columns * step - _GAP, channels), _WHITE, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * step, column * step
            sheet[top : top + step - _GAP, left : left + step - _GAP] = images[row, column]
    write_png(path, Image.fromarray(sheet[..., 0] if channels == 1 else sheet))


def shown_classes(num_classes: int, most: int = MOST_ROWS) -> np.ndarray:
    """The classes of a sheet, int32: all, or as many as fit, evenly spread."""
    return np.unique(np.linspace(0, num_classes - 1, min(num_classes, most)).round()).astype(np.int32)


def class_sheet(sample: Sampler, num_classes: int, seed: int, columns: int = COLUMNS) -> np.ndarray:
    """A row for each class and a column for each latent, uint8 `[R, S, P, P, C]`.

    A sampler's latent depends on the seed and the number of the image in the call, so rows share them.
    """
    rows = [sample(np.full(columns, label, np.int32), seed) for label in shown_classes(num_classes)]
    return np.stack(rows)


def truncation_sheet(samplers: Mapping[float, Sampler], num_classes: int, seed: int) -> np.ndarray:
    """A row for each truncation and a column for each class, uint8 `[R, S, P, P, C]`.

    Each sampler has the statistics of its own truncation.
    """
    labels = shown_classes(num_classes, COLUMNS)
    return np.stack([sample(labels, seed) for sample in samplers.values()])


def interpolations(
    render: Renderer, latents: np.ndarray, num_classes: int, seed: int
) -> dict[str, np.ndarray]:
    """Three sheets, uint8 `[R, S, P, P, C]`: the latent changes, the class changes, both change.

    Every row goes from one sample to another in equal steps. Between two classes the embedding changes.

    Args:
      render: the generator.
      latents: float32 `[2 R, Z]`, the ends of the rows.
      num_classes: K.
      seed: seed of the second class of each row.
    """
    first, last = np.split(latents, 2)
    labels = np.resize(shown_classes(num_classes), len(first))
    others = (
        labels + np.random.default_rng(seed).integers(1, max(2, num_classes), len(labels))
    ) % num_classes
    one, other = np.eye(num_classes, dtype=np.float32)[labels], np.eye(num_classes, dtype=np.float32)[others]
    ends = {"latent": (first, last, one, one), "class": (first, first, one, other)}
    ends["both"] = (first, last, one, other)
    return {name: _between(render, *four) for name, four in ends.items()}


def _between(render: Renderer, first, last, one, other) -> np.ndarray:
    shares = np.linspace(0, 1, _STEPS + 2, dtype=np.float32)

    def along(start, end):
        """`[R, ...]` to `[R * S, ...]`, the steps of a row beside each other."""
        return np.concatenate([(1 - share) * start + share * end for share in shares], 1).reshape(
            -1, start.shape[1]
        )

    images = render(along(first, last), along(one, other))
    return images.reshape(len(first), len(shares), *images.shape[1:])
