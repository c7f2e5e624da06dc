"""Learning-rate schedules and optimizers."""

import difflib
from collections.abc import Callable

import optax

from evonorms_jax.layers import norm_parameters

SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda peak, steps: optax.constant_schedule(peak),
    "cosine": lambda peak, steps: optax.cosine_decay_schedule(peak, max(1, steps)),
}


def make_schedule(
    *, learning_rate: float, steps: int, schedule: str = "constant", warmup_steps: int = 0
) -> optax.Schedule:
    """A linear warm-up from 0 followed by a named schedule over the remaining steps.

    Args:
      learning_rate: the peak.
      steps: length of the training, warm-up included.
      schedule: a name of `SCHEDULES`.
      warmup_steps: length of the warm-up, may be 0.

    Raises:
      ValueError: if the schedule is unknown.
    """
    if schedule not in SCHEDULES:
        near = difflib.get_close_matches(str(schedule), SCHEDULES, n=1, cutoff=0)
        raise ValueError(f"unknown schedule {schedule!r}; did you mean {near[0]!r}?")
    rest = SCHEDULES[schedule](learning_rate, steps - warmup_steps)
    if not warmup_steps:
        return rest
    # (step + 1) / warmup: a first step of size 0 would be a step wasted.
    warmup = optax.linear_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, rest], [warmup_steps])


def sgd(schedule: optax.Schedule, *, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD with Nesterov momentum; weight decay is part of the gradient and spares the norms' parameters."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=norm_parameters),
        optax.sgd(schedule, momentum=momentum, nesterov=True),
    )
