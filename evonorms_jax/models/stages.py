"""Runs the blocks of a stage, one after the other or as one block in a loop."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from evonorms_jax.search_space.target import looping


def run_stage(blocks: Sequence[Any], x: jax.Array, *, train: bool, scan: bool) -> jax.Array:
    """Applies the blocks of one stage to x `[B, spatial..., C]`.

    Args:
      blocks: modules `(x, *, train) -> x`. All but the first keep the shape of x and have the same fields.
      x: feature map or tokens.
      train: mode of the layers.
      scan: whether the blocks after the first run in a loop. The program then holds one of them, whatever
        their number. The variables of the second block, by its name, get a leading axis: one row for each
        block of the loop. Their start values differ from those of separate blocks.
    """
    first, *rest = blocks
    x = first(x, train=train)
    if not scan or len(rest) < 2:
        for block in rest:
            x = block(x, train=train)
        return x

    def body(block, x, _):
        with looping(True):
            return block(x, train=train), None

    loop = nn.scan(
        body,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "dropout": True},
        length=len(rest),
    )
    return loop(rest[0], x, None)[0]
