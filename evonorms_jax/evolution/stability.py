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

    The Hessian product is a difference of two gradients. An exact one, forward over reverse, points the same
    way, and the program takes two to three times as long to build.

    Returns:
      `(candidate, state, images, labels) -> StabilityResult`; the state is that of a fresh start, of which
      the first replica is tested; images cropped and normalised.
    """

    def test(candidate, state: ProxyState, images, labels):
        params, stats = jax.tree.map(lambda a: a[0], (state.params, state.stats))
        leaves, tree = jax.tree.flatten(params)
        is_kernel = [leaf.ndim == 4 for leaf in leaves]
        kernels = [leaf for leaf, chosen in zip(leaves, is_kernel, strict=True) if chosen]

        def loss(kernels):
            rest = iter(kernels)
            merged = [next(rest) if k else leaf for k, leaf in zip(is_kernel, leaves, strict=True)]
            return task.loss(candidate, jax.tree.unflatten(tree, merged), stats, images, labels)[0]

        def unfinished(climb):
            return (climb.step < steps) & (climb.worst <= max_norm)  # False for NaN too

        # One gradient an iteration: by turns at the weights, and a little way along it, so that the loop
        # holds one copy of the network.
        def advance(climb):
            length = _DIFFERENCE * _norm(climb.kernels)
            point = _move(climb.kernels, climb.gradient, jnp.where(climb.probing, length, 0))
            gradient = jax.grad(loss)(point)
            ascent = jax.tree.map(jnp.subtract, gradient, climb.gradient)
            moved = _move(climb.kernels, ascent, step_size * _norm(climb.kernels))
            norm = _norm(gradient)
            worst = jnp.where(norm <= climb.worst, climb.worst, norm)
            at_weights = climb._replace(gradient=gradient, worst=worst, probing=True)
            onward = climb._replace(kernels=moved, probing=False, step=climb.step + 1)
            return jax.tree.map(lambda a, b: jnp.where(climb.probing, a, b), onward, at_weights)

        zeros = jax.tree.map(jnp.zeros_like, kernels)
        start = _Climb(kernels, zeros, jnp.float32(0), jnp.asarray(False), jnp.int32(0))
        end = jax.lax.while_loop(unfinished, advance, start)
        return StabilityResult(end.worst, end.step)

    return test


# Length of the step to the second gradient, relative to the weights: between the rounding of the gradients
# and the curvature of the network.
_DIFFERENCE = 1e-3


class _Climb(NamedTuple):
    """The state of an ascent: weights, the gradient there, the largest norm, whose turn it is, steps."""

    kernels: Any
    gradient: Any
    worst: jax.Array
    probing: jax.Array
    step: jax.Array


def _move(kernels: Any, direction: Any, length: jax.Array) -> Any:
    """The weights moved by a length along a direction."""
    scale = length / jnp.maximum(_norm(direction), 1e-30)
    return jax.tree.map(lambda w, d: w + scale * d, kernels, direction)


def _norm(tree: Any) -> jax.Array:
    """Euclidean norm of all leaves; scaled, since squares of 1e20 would overflow float32."""
    leaves = jax.tree.leaves(tree)
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]))
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sqrt(sum(jnp.sum(jnp.square(leaf / scale)) for leaf in leaves))
