"""What the tests of the layers share: the six layers, and each of them in NumPy float64."""

import numpy as np

import evonorms_jax as en
from evonorms_jax.search_space import CATALOG, evaluate_reference, reference_batch_moments

# Shapes: x [B, H, W, C].
SHAPE = (4, 6, 5, 12)
GROUPS = 4
SIX = {
    "evonorm_b0": en.EvoNormB0,
    "evonorm_b1": en.EvoNormB1,
    "evonorm_b2": en.EvoNormB2,
    "evonorm_s0": en.EvoNormS0,
    "evonorm_s1": en.EvoNormS1,
    "evonorm_s2": en.EvoNormS2,
}
WITH_V = ("evonorm_b0", "evonorm_s0")


def variables_of(name, rng, channels=SHAPE[-1]):
    """Parameters and statistics away from their starts, so that none can be left out unnoticed."""
    names = ["scale", "bias"] + ["v"] * (name in WITH_V)
    params = {key: rng.uniform(0.5, 1.5, channels).astype(np.float32) for key in names}
    if not CATALOG[name].batch_dependent:
        return {"params": params}
    return {"params": params, "batch_stats": {"var": rng.uniform(0.5, 2, channels).astype(np.float32)}}


def oracle(name, params, x, mask=None, var=None, **options):
    """The layer in NumPy float64: the graph of the catalog and the affine; `var` for inference."""
    params = {key: np.asarray(value, np.float64) for key, value in params.items()}
    x = np.asarray(x, np.float64)
    options = {"groups": GROUPS, **options}
    moments = {}
    if var is not None:
        (node,) = reference_batch_moments(CATALOG[name], x)
        moments = {node: np.asarray(var, np.float64)}
    y = evaluate_reference(
        CATALOG[name], x, v1=params.get("v", 1.0), mask=mask, batch_moments=moments, **options
    )
    y = y * params.get("scale", 1) + params.get("bias", 0)
    return y if mask is None else np.where(np.broadcast_to(mask, x.shape[:-1])[..., None], y, 0)


def ragged_mask(batch):
    """A rectangle of another size in every image; every fourth image is all padding."""
    rows, columns = np.arange(SHAPE[1])[None, :, None], np.arange(SHAPE[2])[None, None, :]
    size = (3 - np.arange(batch) % 4).reshape(-1, 1, 1)
    return (rows < 2 * size) & (columns < 2 * size)


def assert_close(actual, desired, tolerance=1e-5):
    scale = np.abs(np.asarray(desired, np.float64)).max()
    np.testing.assert_allclose(np.asarray(actual, np.float64), desired, tolerance, tolerance * scale)
