"""Random shifts of real and generated images inside the differentiated step.

With few images a discriminator learns them by heart. Shifted alike, real and generated images show it more
than they are, and the generator does not learn the shifts (Zhao et al. 2020, arXiv 2006.10738).

B batch, P side of the images, C channels.
"""

import jax
import jax.numpy as jnp


def draw_shifts(key: jax.Array, count: int, most: int) -> jax.Array:
    """Whole pixels down and to the right, int32 `[count, 2]`, each from -most to most; consumes the key."""
    return jax.random.randint(key, (count, 2), -most, most + 1, jnp.int32)


def shift(images: jax.Array, shifts: jax.Array) -> jax.Array:
    """Images `[B, P, P, C]` moved by shifts `[B, 2]`; the pixels of the border repeat.

    A product with two matrices of zeros and ones for each image: it has a cheap gradient on any device.
    """
    side = images.shape[1]
    places = jnp.arange(side)

    def matrix(by):
        sources = jnp.clip(places.reshape(1, -1) - by.reshape(-1, 1), 0, side - 1)
        return jax.nn.one_hot(sources, side, dtype=images.dtype)

    exact = jax.lax.Precision.HIGHEST
    rows = jnp.einsum("bpq,bqwc->bpwc", matrix(shifts[:, 0]), images, precision=exact)
    return jnp.einsum("bwv,bpvc->bpwc", matrix(shifts[:, 1]), rows, precision=exact)
