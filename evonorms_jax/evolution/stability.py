"""The stability test: gradient ascent on the norm of the loss gradient with respect to the weights.

Source: arXiv 2004.02967, section 3.3. The size of a step is our choice. It is relative to the norm of the
weights, so that it means the same for every candidate, whatever the scale of its gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from evonorms_jax.evolution.proxy import ProxyState, ProxyTask, is_body_kernel


class StabilityResult(NamedTuple):
    """The largest gradient norm of an ascent, not finite if one of them was not, and the number of steps."""

    norm: jax.Array
    steps: jax.Array


def make_stability_test(
    task: ProxyTask, *, steps: int, max_norm: float, step_size: float
) -> Callable[..., StabilityResult]:
    """Gradient ascent on `||dL/dw||` over the kernels w before the classifier, on one batch in training mode.

    `w <- w + step_size * ||w|| * d / ||d||` with `d = d||g||/dw = H g / ||g||`, where g is the gradient and H
    the Hessian of the loss. The ascent ends after `steps` steps, or with a norm that is above `max_norm` or
    not finite.

    H g is approximated by a difference of two gradients. The exact product, forward over reverse, points the
    same way, and its program takes two to three times as long to build.

    Args:
      task: proxy task, whose `loss` is differentiated.
      steps: largest number of steps.
      max_norm: gradient norm that ends the ascent.
      step_size: length of a step, relative to the norm of the weights.

    Returns:
      Function `(candidate, state, images, labels) -> StabilityResult`. The state is the start of a training.
      The images are cropped and normalized.
    """

    def test(candidate, state: ProxyState, images, labels):
        leaves, tree = jax.tree.flatten(state.params)
        # Of convolutions, and of the dense layers of a token network. The rest stays as it is.
        is_kernel = [is_body_kernel(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)]
        kernels = [leaf for leaf, chosen in zip(leaves, is_kernel, strict=True) if chosen]

        def loss(kernels):
            rest = iter(kernels)
            merged = [next(rest) if k else leaf for k, leaf in zip(is_kernel, leaves, strict=True)]
            return task.loss(candidate, jax.tree.unflatten(tree, merged), state.stats, images, labels)[0]

        def unfinished(climb):
            return (climb.step < steps) & (climb.worst <= max_norm)  # False for NaN too

        def advance(climb):
            return _advance(climb, jax.grad(loss), step_size)

        zeros = jax.tree.map(jnp.zeros_like, kernels)
        start = _Climb(kernels, zeros, jnp.float32(0), jnp.asarray(False), jnp.int32(0))
        end = jax.lax.while_loop(unfinished, advance, start)
        return StabilityResult(end.worst, end.step)

    return test


# Distance h of the probe from the weights, relative to their norm. With a smaller one the difference would
# drown in the rounding of float32. A larger one would leave the region where the gradient is about linear.
_DIFFERENCE = 1e-3


class _Climb(NamedTuple):
    """The state of an ascent.

    Attributes:
      kernels: weights.
      gradient: gradient at the weights.
      worst: largest norm so far.
      probing: whether the next gradient is that of the probe.
      step: number of steps done.
    """

    kernels: Any
    gradient: Any
    worst: jax.Array
    probing: jax.Array
    step: jax.Array


def _advance(climb: _Climb, gradient_at: Callable[[Any], Any], step_size: float) -> _Climb:
    """The next iteration of an ascent, with one gradient.

    A step needs two gradients. They take turns, one at the weights w and one at the probe w + h g / ||g||, so
    that the program holds one copy of the network.
    """
    # The point of this iteration. Without a probe its distance from the weights is 0.
    length = _DIFFERENCE * _norm(climb.kernels)
    point = _move(climb.kernels, climb.gradient, jnp.where(climb.probing, length, 0))
    gradient = gradient_at(point)
    # At the probe: g(w + h g / ||g||) - g(w) = h H g / ||g|| + O(h^2), the direction of ascent.
    ascent = jax.tree.map(jnp.subtract, gradient, climb.gradient)
    moved = _move(climb.kernels, ascent, step_size * _norm(climb.kernels))
    onward = climb._replace(kernels=moved, probing=False, step=climb.step + 1)
    # At the weights: the gradient to probe along. `<=` is False for NaN, so NaN becomes the worst.
    norm = _norm(gradient)
    worst = jnp.where(norm <= climb.worst, climb.worst, norm)
    at_weights = climb._replace(gradient=gradient, worst=worst, probing=True)
    # Both results are computed, since they cost little beside the gradient. One of them is kept.
    return jax.tree.map(lambda a, b: jnp.where(climb.probing, a, b), onward, at_weights)


def _move(kernels: Any, direction: Any, length: jax.Array) -> Any:
    """The weights moved by a length along a direction."""
    scale = length / jnp.maximum(_norm(direction), 1e-30)  # a direction of 0 moves nothing
    return jax.tree.map(lambda w, d: w + scale * d, kernels, direction)


def _norm(tree: Any) -> jax.Array:
    """Euclidean norm of all leaves, scaled by the largest element, since squares of 1e20 overflow float32."""
    leaves = jax.tree.leaves(tree)
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]))
    scale = jnp.where(largest > 0, largest, 1)
    return scale * jnp.sqrt(sum(jnp.sum(jnp.square(leaf / scale)) for leaf in leaves))
