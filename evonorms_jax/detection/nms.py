"""Non-maximum suppression: drops a box that overlaps a better one of its group too much.

The greedy rule goes through the boxes by falling score and keeps a box unless a kept one before it overlaps
it by more than the threshold. Here it is the fixed point of

    keep_i = not any_j (keep_j and j is before i and overlap_ij > threshold and group_i = group_j),

which is unique, since each box depends only on those before it. Starting from all kept, the first n boxes are
right after n rounds, and the rounds end when nothing changes, usually after fewer than ten.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from evonorms_jax.detection.boxes import overlaps

#: Name of the loop in a compiled program.
SCOPE = "suppression"


class Kept(NamedTuple):
    """The best boxes that remain, by falling score."""

    indices: jax.Array  # int32 [K]; 0 where not valid
    valid: jax.Array  # bool [K]


def suppress(
    boxes: jax.Array,
    scores: jax.Array,
    valid: jax.Array,
    *,
    threshold: float,
    count: int,
    groups: jax.Array | None = None,
) -> Kept:
    """The `count` best of N boxes after suppression.

    Args:
      boxes: `[N, 4]`, in any order.
      scores: `[N]`, finite. Of equal scores the first has precedence.
      valid: bool `[N]`. Other boxes neither suppress nor remain.
      threshold: largest overlap of two boxes that both remain.
      count: K, which may exceed N.
      groups: int `[N]`; boxes of different groups do not suppress each other. It is compared and never added
        to coordinates, which would cost them digits.
    """
    _, order = lax.top_k(jnp.where(valid, scores, -jnp.inf), len(scores))
    conflict = overlaps(boxes[order], boxes[order]) > threshold
    if groups is not None:
        conflict &= groups[order][:, None] == groups[order][None]
    number = jnp.arange(len(order))
    conflict &= number[:, None] < number[None]  # [j, i]: j is before i
    real = valid[order]

    def advance(state):
        keep, _ = state
        new = real & ~jnp.any(conflict & keep[:, None], 0)
        return new, jnp.any(new != keep)

    with jax.named_scope(SCOPE):
        keep, _ = lax.while_loop(lambda state: state[1], advance, (real, jnp.bool_(True)))
    reach = min(count, len(order))
    is_kept, places = lax.top_k(jnp.where(keep, len(order) - number, 0), reach)
    remains = is_kept > 0
    found = Kept(jnp.where(remains, order[places], 0), remains)
    return jax.tree.map(lambda values: jnp.pad(values, (0, count - reach)), found)
