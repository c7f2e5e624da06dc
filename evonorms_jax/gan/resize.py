"""The three ways in which published scores bring an image to 299 x 299, as two matrices.

An image goes `[H, W]` to `R_H x R_W^T`, with R `[299, H]` of the convention. All three give other numbers for
the same images, so a result names its convention:

- `tf1`: TensorFlow 1's bilinear form without half pixels, source position `i * in / out`, the neighbour
  clamped to the edge, no antialiasing, then (x - 128) / 128. The networks of the papers saw such images.
- `pytorch`: bilinear with half pixels, source position `(i + 0.5) * in / out - 0.5` clamped to the image, no
  antialiasing, then 2 x / 255 - 1. Source: pytorch-fid, torch's `interpolate(align_corners=False)`.
- `clean`: Pillow's bicubic filter (a = -0.5) in float without rounding, which antialiases when it shrinks,
  then (x - 128) / 128. Source: clean-fid (Parmar et al. 2022, arXiv 2104.11222), Pillow's `Resample.c`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from evonorms_jax.errors import UserError

SIDE = 299
CONVENTIONS = ("tf1", "pytorch", "clean")


def check_convention(name: str) -> str:
    """The name. An unknown one raises `ValueError`."""
    if name not in CONVENTIONS:
        raise UserError(f"resize must be one of {', '.join(CONVENTIONS)}, got {name!r}")
    return name


@functools.cache
def resize_matrix(convention: str, source: int, target: int) -> np.ndarray:
    """R, float64 `[target, source]`, whose rows have the sum 1."""
    check_convention(convention)
    scale = source / target
    if convention == "clean":
        return _bicubic(source, target, scale)
    places = np.arange(target) * scale
    if convention == "pytorch":
        places = np.maximum((np.arange(target) + 0.5) * scale - 0.5, 0)
    low = np.minimum(places.astype(int), source - 1)
    share = places - low
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target), low), 1 - share)
    np.add.at(matrix, (np.arange(target), np.minimum(low + 1, source - 1)), share)
    return matrix


def _bicubic(source: int, target: int, scale: float) -> np.ndarray:
    """Weights of Keys' cubic (a = -0.5), stretched by the scale when it shrinks, normalized in the image."""
    stretch = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    # Pillow takes the pixels whose index lies between both ends rounded to the nearest number.
    first = np.maximum((centres - 2 * stretch + 0.5).astype(int), 0)
    last = np.minimum((centres + 2 * stretch + 0.5).astype(int), source)
    pixels = np.arange(source)
    x = np.abs(pixels + 0.5 - centres[:, None]) / stretch
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * (x**3 - 5 * x**2 + 8 * x - 4)
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    weights *= (pixels >= first[:, None]) & (pixels < last[:, None])
    return weights / weights.sum(1, keepdims=True)


def preprocess(images: jax.Array, convention: str, side: int = SIDE) -> jax.Array:
    """Images uint8 `[B, H, W, C]` with 1 or 3 channels to float32 `[B, side, side, 3]` about -1 to 1.

    One channel is repeated. Raises `ValueError` for other dtypes and channels: the color behind an alpha
    channel is unknown.
    """
    if images.dtype != jnp.uint8 or images.ndim != 4:
        raise UserError(f"scores need images uint8 [N, H, W, C], got {images.dtype} {images.shape}")
    if images.shape[-1] not in (1, 3):
        raise UserError(f"scores need grey or RGB images without alpha, got {images.shape[-1]} channels")
    rows, columns = (
        jnp.asarray(resize_matrix(convention, size, side), jnp.float32) for size in images.shape[1:3]
    )
    # At the default precision a TPU would multiply in bfloat16.
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ih,bhwc,jw->bijc", rows, images.astype(jnp.float32), columns, precision=highest)
    x = x * (2 / 255) - 1 if convention == "pytorch" else (x - 128) / 128
    return jnp.repeat(x, 3, axis=-1) if x.shape[-1] == 1 else x
