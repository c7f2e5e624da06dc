"""Spectral normalization: layers with weights divided by their largest singular value.

Miyato et al. 2018 (arXiv 1802.05957). A power iteration in every training step follows the largest singular
value. Its state is a vector `u` for each kernel, in the collection `spectral`, apart from batch statistics.

A kernel is seen as a matrix W `[M, O]`, O its last axis: `[K * K * I, O]` of a convolution, `[classes, O]` of
a table.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import dtypes
from flax.traverse_util import flatten_dict, unflatten_dict

from evonorms_jax.gan.orthogonal import orthogonal
from evonorms_jax.models.convolution import convolve

COLLECTION = "spectral"
# Below it a norm counts as 0: a kernel of zeros stays one, and the direction u stays as it was.
_TINY = 1e-12
_PARAMETERS = ("kernel", "embedding")


def normalize(kernel: jax.Array, u: jax.Array, update: bool) -> tuple[jax.Array, jax.Array]:
    """One power iteration, and the kernel divided by the estimate of its largest singular value sigma.

    `v = n(u W^T)`, `u = n(v W)`, `sigma = v W u^T`, n the division by the Euclidean norm. The gradient passes
    through W in sigma, and not through u and v. Everything is float32 with products in full precision, also
    on a TPU.

    Args:
      kernel: weights `[..., O]`.
      u: right singular vector so far, `[O]`.
      update: whether the new u is returned instead of the given one.

    Returns:
      `kernel / sigma`, float32, and u. A kernel of zeros stays as it is.
    """
    matrix = kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])
    v, new_u = jax.lax.stop_gradient(_power_iteration(matrix, u))
    sigma = _product(v, _product(matrix, new_u))
    divisor = jnp.where(sigma > _TINY, sigma, 1)
    return (matrix / divisor).reshape(kernel.shape), new_u if update else u


def refresh(params: Any, spectral: Any, iterations: int) -> Any:
    """The collection `spectral` after further power iterations on other weights, such as averaged ones.

    Args:
      params: parameters, nested by module.
      spectral: collection of the same modules.
      iterations: number of iterations.
    """
    weights, vectors = flatten_dict(params), flatten_dict(spectral)

    def settle(path, u):
        (matrix,) = (weights[*path[:-1], name] for name in _PARAMETERS if (*path[:-1], name) in weights)
        matrix = matrix.astype(jnp.float32).reshape(-1, matrix.shape[-1])
        return jax.lax.fori_loop(0, iterations, lambda _, u: _power_iteration(matrix, u)[1], u)

    return unflatten_dict({path: settle(path, u) for path, u in vectors.items()})


def largest_singular_value(kernel: jax.Array, u: jax.Array) -> jax.Array:
    """The estimate of a kernel's largest singular value by its u `[O]`, a scalar."""
    matrix = kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])
    return jnp.linalg.norm(_product(matrix, u))


def _power_iteration(matrix, u):
    """Unit vectors v `[M]` and u `[O]`, closer to the first singular pair than the given u."""
    v = _unit(_product(matrix, u), jnp.zeros(len(matrix)))
    return v, _unit(_product(v, matrix), u)


def _unit(vector, otherwise):
    norm = jnp.linalg.norm(vector)
    return jnp.where(norm > _TINY, vector / jnp.where(norm > _TINY, norm, 1), otherwise)


def _product(a, b):
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)


class _Spectral(nn.Module):
    """A module that normalizes its kernel. Where the collection is mutable, as in training, u advances."""

    def _kernel(self, name: str, shape: tuple[int, ...]) -> jax.Array:
        kernel = self.param(name, orthogonal(), shape, jnp.float32)
        # A matrix with orthogonal rows or columns has one singular value: any u is right after one iteration.
        u = self.variable(COLLECTION, "u", lambda: jnp.full(shape[-1:], shape[-1] ** -0.5, jnp.float32))
        kernel, new_u = normalize(kernel, u.value, update=self.is_mutable_collection(COLLECTION))
        if not self.is_initializing() and self.is_mutable_collection(COLLECTION):
            u.value = new_u
        return kernel

    def _bias(self, use: bool, features: int) -> jax.Array | None:
        return self.param("bias", nn.initializers.zeros, (features,), jnp.float32) if use else None


class SpectralConv(_Spectral):
    """A square convolution with SAME padding, and `kernel` `[K, K, I, O]` normalized."""

    features: int  # O
    kernel_size: int  # K
    use_bias: bool = True
    dtype: Any = None  # of the computation. The normalization is float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, H, W, I]` to `[B, H, W, O]`."""
        kernel = self._kernel("kernel", (self.kernel_size,) * 2 + (x.shape[-1], self.features))
        x, kernel, bias = dtypes.promote_dtype(
            x, kernel, self._bias(self.use_bias, self.features), dtype=self.dtype
        )
        y = convolve(x, kernel)
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)


class SpectralDense(_Spectral):
    """A dense layer with `kernel` `[I, O]` normalized."""

    features: int  # O
    use_bias: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, I]` to `[B, O]`."""
        kernel = self._kernel("kernel", (x.shape[-1], self.features))
        x, kernel, bias = dtypes.promote_dtype(
            x, kernel, self._bias(self.use_bias, self.features), dtype=self.dtype
        )
        y = x @ kernel
        return y if bias is None else y + bias.reshape(1, -1)


class SpectralEmbed(_Spectral):
    """A table `embedding` `[K, E]` of K classes, normalized."""

    num_classes: int  # K
    features: int  # E

    @nn.compact
    def __call__(self, labels: jax.Array) -> jax.Array:
        """Maps labels as in `look_up` to `[B, E]`, float32."""
        return look_up(self._kernel("embedding", (self.num_classes, self.features)), labels)


class Embed(nn.Module):
    """A table `embedding` `[K, E]` of K classes without normalization, orthogonal at the start."""

    num_classes: int  # K
    features: int  # E
    scale: float = 1.0  # of the start: the largest singular value

    @nn.compact
    def __call__(self, labels: jax.Array) -> jax.Array:
        """Maps labels as in `look_up` to `[B, E]`, float32."""
        shape, start = (self.num_classes, self.features), orthogonal(self.scale)
        return look_up(self.param("embedding", start, shape, jnp.float32), labels)


def look_up(table: jax.Array, labels: jax.Array) -> jax.Array:
    """Rows of the table `[K, E]` for int labels `[B]`, or mixtures of rows for weights `[B, K]`: `[B, E]`."""
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return table[labels]
    return jnp.dot(labels, table, precision=jax.lax.Precision.HIGHEST)
