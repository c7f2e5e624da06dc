"""The affine form of a candidate: what is left of it in front of another linear operation."""

from evonorms_jax.search_space.compiled import NormAct, affine, check_input
from evonorms_jax.search_space.moments import keep_only_moments, masked_input


def _init(channels: int, dtype=None):
    del channels, dtype
    return {}, {}


def _apply(params, stats, x, *, train, mask=None, scale=None, bias=None, dtype=None):
    del params, train
    check_input(x)

    def forward(x, mask, scale, bias):
        x, mask = masked_input(x, mask)
        return affine(x, scale, bias, mask).astype(dtype or x.dtype)

    # There are no moments to keep; but x stays in its own dtype and not in the float32 of the product.
    return keep_only_moments(forward)(x, mask, scale, bias), stats


#: `x * scale + bias` as a `NormAct`: no parameters of its own, no statistics, no division.
AFFINE = NormAct(_init, _apply)
