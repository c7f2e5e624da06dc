"""The steps of the training of a detector: pure functions, jitted over a mesh.

A step divides its batch as that of a classifier does: parts that are worked on one after the other, and in
each part groups of images with batch statistics of their own. The losses of a batch are the means of those of
its groups, and so do not depend on the number of parts or devices.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from evonorms_jax.detection.detector import MaskRcnn
from evonorms_jax.detection.forward import Choices, detect, training_losses
from evonorms_jax.detection.types import Detections, TrainingBatch
from evonorms_jax.training.mesh import replicated, split
from evonorms_jax.training.steps import (
    Metrics,
    StepSettings,
    TrainState,
    building_on,
    cut,
    evaluated_variables,
    mean_over_parts,
)


def make_init(
    detector: MaskRcnn, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Callable[[jax.Array], TrainState]:
    """Builds `init(key) -> TrainState` for the state before the first step. It consumes the key."""

    def init(key):
        with building_on(mesh):
            variables = detector.init(key)
        params, stats = variables["params"], variables.get("batch_stats", {})
        return TrainState(jnp.int32(0), params, stats, optimizer.init(params), {})

    return jax.jit(init, out_shardings=replicated(mesh))


def make_train_step(
    detector: MaskRcnn,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    settings: StepSettings,
    choices: Choices,
) -> Callable[[TrainState, TrainingBatch, jax.Array], tuple[TrainState, Metrics]]:
    """Builds `train_step(state, batch, key) -> (state, metrics)`.

    The key is that of the whole training, and the number of the step is folded into it. The state given is
    donated. Metrics are the five losses, their sum without weight decay and the norm of the gradient, in this
    order, so that the first one that is not finite is the origin of the others.
    """
    gradient_of = _make_gradient(detector, choices)

    def train_step(state, batch, key):
        parts = cut(tuple(batch), settings, mesh)
        run = functools.partial(
            gradient_of, state.params, state.batch_stats, jax.random.fold_in(key, state.step)
        )
        with building_on(mesh):
            metrics, stats, gradient = mean_over_parts(run, parts)
        change, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, change)
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        return TrainState(state.step + 1, params, stats, opt_state, {}), metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=replicated(mesh))


def _make_gradient(detector: MaskRcnn, choices: Choices):
    """Builds `of_part(params, stats, key, part)` for a step."""

    def losses_of(params, stats, key, *batch):
        def passes(bound):
            return training_losses(bound, TrainingBatch(*batch), key, choices)

        variables = {"params": params, "batch_stats": stats}
        found, updated = detector.apply(variables, method=passes, mutable=["batch_stats"])
        return found, updated.get("batch_stats", {})

    def of_part(params, stats, key, part):
        """Metrics, moving statistics and gradient of a part `[G, b, ...]`, means over G."""
        *batch, numbers = part

        def mean_loss(params):
            keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
            each = jax.vmap(losses_of, in_axes=(None, None, *[0] * (1 + len(batch))))
            found, new_stats = jax.tree.map(lambda leaf: jnp.mean(leaf, 0), each(params, stats, keys, *batch))
            total = sum(found.values())
            return total, (OrderedDict(found, loss=total), new_stats)

        (_, (metrics, stats)), gradient = jax.value_and_grad(mean_loss, has_aux=True)(params)
        return metrics, stats, gradient

    return of_part


def make_detect(
    detector: MaskRcnn, mesh: Mesh, choices: Choices
) -> Callable[[TrainState, jax.Array, jax.Array], Detections]:
    """Builds `detections(state, images, sizes)`, which uses the moving statistics."""

    @functools.partial(jax.jit, out_shardings=split(mesh))
    def detections(state, images, sizes):
        def passes(bound):
            return detect(bound, images, sizes, choices)

        with building_on(mesh):
            return detector.apply(evaluated_variables(state), method=passes)

    return detections
