"""The stability test: how far does the gradient grow when the weights are moved to make it grow?

Source: arXiv 2004.02967, section 3.3. The size of a step is our choice: it is relative, so that it means the
same for every candidate, whatever the scale of its gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evonorms_jax.evolution.proxy import ProxyState, ProxyTask


class StabilityResult(NamedTuple):
    """The largest gradient norm met (not finite if one was not) and the number of steps taken."""

    norm: jax.Array
    steps: jax.Array


def make_stability_test(
    task: ProxyTask, *, steps: int, max_norm: float, step_size: float
) -> Callable[..., StabilityResult]:
    """Gradient ascent on `||dL/dw||` over the convolution kernels w, on one batch in training mode.

    `w <- w + step_size * ||w|| * d / ||d||` with `d = d||g||/dw = H g / ||g||`, g the gradient and H the
    Hessian of the loss. It ends after `steps` steps, or when the norm is above `max_norm` or not finite.

    Returns:
      `(candidate, state, images, labels) -> StabilityResult`; the state is that of a fresh start, of which
      the first replica is tested; images cropped and normalised.
    """

    def test(candidate, state: ProxyState, images, labels):
        params, stats = jax.tree.map(lambda a: a[0], (state.params, state.stats))
        leaves, tree = jax.tree.flatten(params)
        is_kernel = [leaf.ndim == 4 for leaf in leaves]
        kernels = [leaf for leaf, chosen in zip(leaves, is_kernel, strict=True) if chosen]

        def gradient(kernels):
            def loss(kernels):
                rest = iter(kernels)
                merged = [next(rest) if k else leaf for k, leaf in zip(is_kernel, leaves, strict=True)]
                return task.loss(candidate, jax.tree.unflatten(tree, merged), stats, images, labels)[0]

            return jax.grad(loss)(kernels)

        def unfinished(carry):
            _, _, worst, step = carry
            return (step < steps) & (worst <= max_norm)  # False for NaN too

        def step(carry):
            kernels, direction, worst, number = carry
            _, ascent = jax.jvp(gradient, (kernels,), (direction,))
            length = step_size * _norm(kernels) / jnp.maximum(_norm(ascent), 1e-30)
            kernels = jax.tree.map(lambda w, d: w + length * d, kernels, ascent)
            g = gradient(kernels)
            norm = _norm(g)
            worst = jnp.where(norm <= worst, worst, norm)
            return kernels, _unit(g, norm), worst, number + 1

        g = gradient(kernels)
        norm = _norm(g)
        *_, worst, taken = jax.lax.while_loop(
            unfinished, step, (kernels, _unit(g, norm), norm, jnp.int32(0))
        )
        return StabilityResult(worst, taken)

    return test


def _norm(tree: Any) -> jax.Array:
    """Euclidean norm of all leaves; scaled, since squares of 1e20 would overflow float32."""
    leaves = jax.tree.leaves(tree)
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]))
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sqrt(sum(jnp.sum(jnp.square(leaf / scale)) for leaf in leaves))


def _unit(tree: Any, norm: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf / jnp.maximum(norm, 1e-30), tree)
