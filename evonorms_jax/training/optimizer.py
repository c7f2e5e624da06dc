"""The group `optimizer` of a config: learning-rate schedules and optimizers by name."""

import difflib
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax

from evonorms_jax.errors import UserError
from evonorms_jax.layers import norm_parameters

# "step" multiplies the rate by 0.1 after epochs 30, 60 and 80 of 90, as in the released ResNet code.
_DROPS = (30 / 90, 60 / 90, 80 / 90)
# "exponential" multiplies it by 0.97 every 2.4 epochs of 350, as in the released EfficientNet code.
_DECAY, _DECAY_EVERY = 0.97, 2.4 / 350


def _step(peak: float, steps: int, warmup_steps: int) -> optax.Schedule:
    return optax.piecewise_constant_schedule(peak, {round(steps * at) - warmup_steps: 0.1 for at in _DROPS})


def _exponential(peak: float, steps: int, warmup_steps: int) -> optax.Schedule:
    every = steps * _DECAY_EVERY
    return lambda step: peak * _DECAY ** jnp.floor((step + warmup_steps) / every)


#: Functions from `(peak, steps, warmup_steps)` to the schedule after the warm-up, counted from its end.
SCHEDULES: dict[str, Callable[[float, int, int], optax.Schedule]] = {
    "constant": lambda peak, steps, warmup_steps: optax.constant_schedule(peak),
    "cosine": lambda peak, steps, warmup_steps: optax.cosine_decay_schedule(
        peak, max(1, steps - warmup_steps)
    ),
    "step": _step,
    "exponential": _exponential,
}


def make_schedule(
    *, learning_rate: float, steps: int, schedule: str = "constant", warmup_steps: int = 0
) -> optax.Schedule:
    """A linear warm-up from 0 followed by a named schedule over the remaining steps.

    Args:
      learning_rate: peak of the schedule.
      steps: length of the training, warm-up included.
      schedule: name in `SCHEDULES`.
      warmup_steps: length of the warm-up, at least 0.

    Raises:
      ValueError: if the schedule is unknown, or the warm-up is not from 0 to `steps`.
    """
    if schedule not in SCHEDULES:
        near = difflib.get_close_matches(str(schedule), SCHEDULES, n=1, cutoff=0)
        raise UserError(f"unknown schedule {schedule!r}; did you mean {near[0]!r}?")
    if not 0 <= warmup_steps <= steps:
        raise UserError(f"warmup_steps must be from 0 to steps, {steps}, got {warmup_steps}")
    rest = SCHEDULES[schedule](learning_rate, steps, warmup_steps)
    if not warmup_steps:
        return rest

    def warmup(step):
        return learning_rate * (step + 1) / warmup_steps  # + 1: a first step of size 0 would be wasted

    return optax.join_schedules([warmup, rest], [warmup_steps])


def sgd(schedule: optax.Schedule, *, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD with Nesterov momentum. Weight decay is added to the gradient of all but the norms' parameters."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=norm_parameters),
        optax.sgd(schedule, momentum=momentum, nesterov=True),
    )


def rmsprop(
    schedule: optax.Schedule, *, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """RMSProp as in TensorFlow 1, for the EfficientNets: g / sqrt(m + 0.001).

    The mean square m starts at 1 and decays by 0.9. Weight decay is that of `sgd`.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=norm_parameters),
        optax.rmsprop(schedule, decay=0.9, eps=1e-3, initial_scale=1.0, eps_in_sqrt=True, momentum=momentum),
    )


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {"sgd": sgd, "rmsprop": rmsprop}


class OptimizerSettings(NamedTuple):
    """How a training turns gradients into changes. The fields are the keys of `config.optimizer`."""

    name: str  # in `OPTIMIZERS`
    momentum: float
    weight_decay: float  # factor of the parameters that is added to the gradient
    learning_rate: float  # peak of the schedule
    schedule: str = "constant"  # name in `SCHEDULES`
    warmup_steps: int = 0
    warmup_epochs: float | None = None  # length of the warm-up in epochs, overrides `warmup_steps`
    # Batch size for which `learning_rate` is given: the rate grows with the batch. By default it does not.
    reference_batch: int | None = None


def make_optimizer(
    settings: OptimizerSettings, *, steps: int, batch_size: int, images: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a training of `steps` steps and `images` images an epoch, and its rate by step.

    Raises `ValueError` if the optimizer is unknown, or as `make_schedule`.
    """
    if settings.name not in OPTIMIZERS:
        raise UserError(f"unknown optimizer {settings.name!r}; there are {', '.join(OPTIMIZERS)}")
    rate, warmup_steps = settings.learning_rate, settings.warmup_steps
    if settings.reference_batch is not None:
        rate *= batch_size / settings.reference_batch
    if settings.warmup_epochs is not None:
        warmup_steps = round(settings.warmup_epochs * images / batch_size)
    schedule = make_schedule(
        learning_rate=rate, steps=steps, schedule=settings.schedule, warmup_steps=warmup_steps
    )
    make = OPTIMIZERS[settings.name]
    return make(schedule, momentum=settings.momentum, weight_decay=settings.weight_decay), schedule
