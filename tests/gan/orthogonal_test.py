"""Orthogonal initial weights: the form for TPUs has the values of the decomposition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evonorms_jax.gan.orthogonal import orthogonal, orthonormalize
from evonorms_jax.search_space import target

SHAPES = [(3, 3, 8, 16), (5, 40), (16, 16), (1, 1, 8, 3), (7, 1), (1, 7)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_forms_give_the_same_weights(shape):
    made = {}
    for platform in ("cpu", "tpu"):
        with target.building_for(platform):
            made[platform] = np.asarray(jax.jit(orthogonal(0.5), static_argnums=1)(jax.random.key(3), shape))
    np.testing.assert_allclose(made["tpu"], made["cpu"], atol=1e-5)
    matrix = made["tpu"].reshape(-1, shape[-1]).astype(np.float64)
    gram = matrix @ matrix.T if len(matrix) < shape[-1] else matrix.T @ matrix
    np.testing.assert_allclose(gram, 0.25 * np.eye(len(gram)), atol=1e-6)


def test_rows_that_nearly_depend_on_each_other_are_orthogonal_to_the_last_digits():
    shared = np.random.default_rng(0).normal(size=(1, 60))
    rows = shared + 1e-3 * np.random.default_rng(1).normal(size=(40, 60))
    found = np.asarray(orthonormalize(jnp.asarray(rows, jnp.float32)), np.float64)
    np.testing.assert_allclose(found @ found.T, np.eye(40), atol=2e-6)


def test_the_form_for_tpus_has_no_decomposition():
    with target.building_for("tpu"):
        text = jax.jit(orthogonal(), static_argnums=1).lower(jax.random.key(0), (3, 3, 8, 300)).as_text()
    assert "while" in text and "geqrf" not in text
