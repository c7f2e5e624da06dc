"""The group `optimizer` of a config: learning-rate schedules and optimizers by name."""

import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from evonorms_jax.errors import UserError
from evonorms_jax.layers import norm_parameters

# "step" multiplies the rate by 0.1 after epochs 30, 60 and 80 of 90, as in the released ResNet code.
DROPS = (30 / 90, 60 / 90, 80 / 90)
# "exponential" multiplies it by 0.97 every 2.4 epochs of 350, as in the released EfficientNet code.
_DECAY, _DECAY_EVERY = 0.97, 2.4 / 350
# Decay of the mean square in Adam, that of its publication.
_B2 = 0.999
# Modules whose kernels Muon leaves to Adam: the first layer and the last one.
_ENDS = ("stem", "patches", "classifier")


def _step(peak: float, steps: int, warmup_steps: int, drops: Sequence[float]) -> optax.Schedule:
    return optax.piecewise_constant_schedule(peak, {round(steps * at) - warmup_steps: 0.1 for at in drops})


def _exponential(peak: float, steps: int, warmup_steps: int, drops: Sequence[float]) -> optax.Schedule:
    del drops
    every = steps * _DECAY_EVERY
    return lambda step: peak * _DECAY ** jnp.floor((step + warmup_steps) / every)


#: Functions `(peak, steps, warmup_steps, drops)` to the schedule after the warm-up, counted from its end.
SCHEDULES: dict[str, Callable[[float, int, int, Sequence[float]], optax.Schedule]] = {
    "constant": lambda peak, steps, warmup_steps, drops: optax.constant_schedule(peak),
    "cosine": lambda peak, steps, warmup_steps, drops: optax.cosine_decay_schedule(
        peak, max(1, steps - warmup_steps)
    ),
    "step": _step,
    "exponential": _exponential,
}


def make_schedule(
    *,
    learning_rate: float,
    steps: int,
    schedule: str = "constant",
    warmup_steps: int = 0,
    drops: Sequence[float] = DROPS,
) -> optax.Schedule:
    """A linear warm-up from 0 followed by a named schedule over the remaining steps.

    Args:
      learning_rate: peak of the schedule.
      steps: length of the training, warm-up included.
      schedule: name in `SCHEDULES`.
      warmup_steps: length of the warm-up, at least 0.
      drops: places of the drops of "step", as shares of the length.

    Raises:
      ValueError: if the schedule is unknown, or the warm-up is not from 0 to `steps`.
    """
    if schedule not in SCHEDULES:
        near = difflib.get_close_matches(str(schedule), SCHEDULES, n=1, cutoff=0)
        raise UserError(f"unknown schedule {schedule!r}; did you mean {near[0]!r}?")
    if not 0 <= warmup_steps <= steps:
        raise UserError(f"warmup_steps must be from 0 to steps, {steps}, got {warmup_steps}")
    rest = SCHEDULES[schedule](learning_rate, steps, warmup_steps, drops)
    if not warmup_steps:
        return rest

    def warmup(step):
        return learning_rate * (step + 1) / warmup_steps  # + 1: a first step of size 0 would be wasted

    return optax.join_schedules([warmup, rest], [warmup_steps])


def kernels(params: Any) -> Any:
    """The mask of the parameters with the name `kernel`, which leaves out norms and all biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


#: The parameters that weight decay is for, by name, as functions from parameters to a mask.
DECAYED: dict[str, Callable[[Any], Any]] = {"all_but_norms": norm_parameters, "kernels": kernels}


def sgd(
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    decayed: Callable[[Any], Any] = norm_parameters,
    nesterov: bool = True,
) -> optax.GradientTransformation:
    """SGD with momentum. Weight decay is added to the gradient of all but the norms' parameters."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.sgd(schedule, momentum=momentum, nesterov=nesterov),
    )


def rmsprop(
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    decayed: Callable[[Any], Any] = norm_parameters,
) -> optax.GradientTransformation:
    """RMSProp as in TensorFlow 1, for the EfficientNets: g / sqrt(m + 0.001).

    The mean square m starts at 1 and decays by 0.9. Weight decay is that of `sgd`.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.rmsprop(schedule, decay=0.9, eps=1e-3, initial_scale=1.0, eps_in_sqrt=True, momentum=momentum),
    )


def adamw(
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    decayed: Callable[[Any], Any] = norm_parameters,
) -> optax.GradientTransformation:
    """AdamW: w <- w - rate (m / (sqrt(s) + 1e-8) + weight_decay w).

    m and s are the means of g and g^2 with decays `momentum` and 0.999, without the bias of their start. The
    weight decay is no part of them, and it follows the rate of the schedule.
    Source: arXiv 1711.05101, where the decay does not follow the peak of the schedule.
    """
    return optax.adamw(schedule, b1=momentum, b2=_B2, weight_decay=weight_decay, mask=decayed)


def muon(
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    decayed: Callable[[Any], Any] = norm_parameters,
) -> optax.GradientTransformation:
    """Muon for the matrices inside the network, and Adam for all else.

    The step of a matrix is 0.2 sqrt(max(inputs, outputs)) U V^T, where U S V^T is its Nesterov momentum with
    the decay `momentum`. Five iterations of Newton and Schulz approximate U V^T. A convolution is a matrix of
    K L I inputs. The first layer, the classifier, depthwise kernels, biases and norms get Adam with the mean
    of Nesterov and decays 0.9 and 0.999. Weight decay is that of `adamw`.
    Sources: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", and arXiv
    2502.16982 for the factor, by which one rate and one weight decay suit both parts.
    """
    direction = optax.contrib.muon(
        -1.0,  # gives the direction itself, with its own sign
        beta=momentum,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=_matrices,
    )
    return optax.chain(
        direction,
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.scale_by_learning_rate(schedule),
    )


def _matrices(params: Any) -> Any:
    """The axes of the matrix in each parameter that Muon moves, and None for the others."""

    def axes(path, leaf):
        names = [key.key for key in path]
        depthwise = leaf.ndim >= 4 and leaf.shape[-2] == 1
        if names[-1] != "kernel" or names[0] in _ENDS or depthwise:
            return None
        # An axis before these is that of the blocks of a loop, each with a matrix of its own.
        inputs = (-4, -3, -2) if leaf.ndim >= 4 else (-2,)
        return optax.contrib.MuonDimensionNumbers(inputs, (-1,))

    return jax.tree_util.tree_map_with_path(axes, params)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": sgd,
    "momentum": functools.partial(sgd, nesterov=False),
    "rmsprop": rmsprop,
    "adamw": adamw,  # this one and the next are beyond the paper
    "muon": muon,
}


def optimizer_named(name: str) -> Callable[..., optax.GradientTransformation]:
    """The entry of `OPTIMIZERS`. Raises `ValueError` if there is none."""
    if name not in OPTIMIZERS:
        raise UserError(f"unknown optimizer {name!r}; there are {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]


class OptimizerSettings(NamedTuple):
    """How a training turns gradients into changes. The fields are the keys of `config.optimizer`."""

    name: str  # in `OPTIMIZERS`
    momentum: float  # decay of the mean gradient, in AdamW b1
    weight_decay: float  # factor of the parameters that joins the gradient, in AdamW and Muon the step
    learning_rate: float  # peak of the schedule
    schedule: str = "constant"  # name in `SCHEDULES`
    warmup_steps: int = 0
    warmup_epochs: float | None = None  # length of the warm-up in epochs, overrides `warmup_steps`
    # Batch size for which `learning_rate` is given: the rate grows with the batch. By default it does not.
    reference_batch: int | None = None
    drops: Sequence[float] = DROPS  # places of the drops of the schedule "step", as shares of the length
    decayed: str = "all_but_norms"  # name in `DECAYED`
    clip_norm: float | None = None  # largest norm of a gradient, to which a larger one is scaled down


def make_optimizer(
    settings: OptimizerSettings, *, steps: int, batch_size: int, images: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a training of `steps` steps and `images` images an epoch, and its rate by step.

    Raises `ValueError` if the optimizer is unknown, or as `make_schedule`.
    """
    build = optimizer_named(settings.name)
    if settings.decayed not in DECAYED:
        raise UserError(f"optimizer.decayed must be {' or '.join(DECAYED)}, got {settings.decayed!r}")
    rate, warmup_steps = settings.learning_rate, settings.warmup_steps
    if settings.reference_batch is not None:
        rate *= batch_size / settings.reference_batch
    if settings.warmup_epochs is not None:
        warmup_steps = round(settings.warmup_epochs * images / batch_size)
    schedule = make_schedule(
        learning_rate=rate,
        steps=steps,
        schedule=settings.schedule,
        warmup_steps=warmup_steps,
        drops=settings.drops,
    )
    optimizer = build(
        schedule,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        decayed=DECAYED[settings.decayed],
    )
    if settings.clip_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(settings.clip_norm), optimizer)
    return optimizer, schedule
