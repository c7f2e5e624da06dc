"""Random subsets of fixed size: the anchors and regions of an image that enter the losses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Sample(NamedTuple):
    """Chosen candidates, the positive ones first."""

    indices: jax.Array  # int32 [K]; 0 where not valid
    positive: jax.Array  # bool [K]
    valid: jax.Array  # bool [K]; False where the candidates ran out


def sample(
    key: jax.Array, positive: jax.Array, negative: jax.Array, count: int, positive_count: int
) -> Sample:
    """Draws `count` of N candidates, of which at most `positive_count` are positive.

    Negative ones fill the places that positive ones leave. All subsets of either kind are equally likely.

    Args:
      key: consumed; one uniform number for each candidate.
      positive: bool `[N]`.
      negative: bool `[N]`, disjoint with `positive`. Candidates in neither are not drawn.
      count: K.
      positive_count: at most K.
    """
    noise = jax.random.uniform(key, positive.shape, jnp.float32)
    places = jnp.arange(count)
    drawn, found = _draw(noise, jnp.stack([positive, negative]), count)
    taken = jnp.minimum(found[0], positive_count)
    is_positive = places < taken
    indices = jnp.where(is_positive, drawn[0][places], drawn[1][jnp.maximum(places - taken, 0)])
    valid = places < taken + jnp.minimum(found[1], count - taken)
    return Sample(jnp.where(valid, indices, 0), is_positive, valid)


def _draw(noise: jax.Array, kinds: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """For both kinds `[2, N]`, random indices `[2, count]` with theirs first, and the number of theirs."""
    reach = min(count, len(noise))
    # One sort for both: XLA:TPU takes long to compile a sort of so many numbers.
    _, indices = lax.top_k(jnp.where(kinds, noise[None], -1.0), reach)
    return jnp.pad(indices, ((0, 0), (0, count - reach))), jnp.minimum(jnp.sum(kinds, 1), reach)
