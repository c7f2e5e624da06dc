"""What a computation costs, without running it."""

from collections.abc import Callable
from typing import Any

import jax


def operations(function: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations of `function(*arguments)`, as XLA counts them before it optimizes.

    They are counted on the CPU backend, whatever the default one is: those of GPUs and TPUs do not tell.

    Args:
      function: what `jax.jit` takes.
      *arguments: pytrees of arrays or `ShapeDtypeStruct`s, of which only shapes and dtypes count.

    Raises:
      ValueError: if JAX was told to do without its CPU backend.
    """
    try:
        device, *_ = jax.local_devices(backend="cpu")
    except RuntimeError:
        raise ValueError(
            "operations are counted on JAX's CPU backend, which JAX_PLATFORMS leaves out: add ',cpu' to it"
        ) from None
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    with jax.default_device(device):
        return jax.jit(function).lower(*shapes).cost_analysis()["flops"]
