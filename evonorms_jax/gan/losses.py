"""Losses of both networks, the regularization of the generator, and a signal of its collapse.

B batch, P side of the images, C channels, K classes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

_POOLED = 8  # side that images are reduced to before their variance within classes is taken
_TINY = 1e-6  # variance that does not count, of images from -1 to 1


def discriminator_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
    """The hinge loss of logits `[B]` each: `mean(relu(1 - real)) + mean(relu(1 + fake))`.

    Lim and Ye 2017 (arXiv 1705.02894), as in BigGAN.
    """
    return jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake))


def generator_loss(fake: jax.Array) -> jax.Array:
    """`-mean(fake)` of logits `[B]`."""
    return -jnp.mean(fake)


def orthogonality_gradient(params: Any) -> Any:
    """The gradient of `sum_W |W^T W * (1 - I)|^2 / 2` over the kernels of a generator.

    W `[M, O]` is a kernel before its normalization, O its outputs, and `*` the product of elements. The class
    table is left out, and so are vectors. Brock et al. 2019 (arXiv 1809.11096), section 3.1, with the factor
    of the authors' public code.
    """

    def gradient(path, leaf):
        if path[-1] != "kernel":
            return jnp.zeros_like(leaf)
        matrix = leaf.reshape(-1, leaf.shape[-1])
        products = matrix.T @ matrix
        products *= 1 - jnp.eye(len(products), dtype=products.dtype)
        return 2 * (matrix @ products).reshape(leaf.shape)

    return unflatten_dict({path: gradient(path, leaf) for path, leaf in flatten_dict(params).items()})


def variance_within_classes(images: jax.Array, labels: jax.Array, num_classes: int) -> jax.Array:
    """The unbiased variance of images `[B, P, P, C]` around the means of their classes, summed over pixels.

    Images are reduced to 8 x 8 or so first. Near 0 the images of a class are all alike.
    """
    pool = max(1, images.shape[1] // _POOLED)
    side = images.shape[1] // pool
    images = images[:, : side * pool, : side * pool].astype(jnp.float32)
    pooled = jnp.mean(images.reshape(len(images), side, pool, side, pool, -1), (2, 4)).reshape(
        len(images), -1
    )
    members = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    counts = jnp.sum(members, 0)
    means = (members.T @ pooled) / jnp.maximum(counts, 1).reshape(-1, 1)
    squares = jnp.sum(jnp.square(pooled - members @ means))
    return squares / jnp.maximum(len(images) - jnp.sum(counts > 0), 1)


def variance_ratio(fake, fake_labels, real, real_labels, num_classes: int) -> jax.Array:
    """The variance within classes of generated images over that of real ones; 1 is right, 0 a collapse."""
    found = variance_within_classes(fake, fake_labels, num_classes)
    return (found + _TINY) / (variance_within_classes(real, real_labels, num_classes) + _TINY)
