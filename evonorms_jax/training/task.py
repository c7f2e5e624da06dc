"""The contract between the training loop and a task: classification, detection or image synthesis.

The loop of `training/loop.py` knows this contract alone. A new task is one module with a function
`build_task(config, devices=None) -> Task` and an entry in `evonorms_jax/tasks.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import optax
from etils import epath
from ml_collections import ConfigDict

#: Keys that may change before a training resumes: the place and speed of reading, the frequency of writing,
#: and the order of sums, which like the number of devices keeps results equal up to rounding.
MAY_DIFFER = (
    *("data.data_dir", "data.threads", "data.workers", "log_every", "eval_every", "checkpoint_every"),
    *("accumulate", "eval_batch_size"),
)


class State(Protocol):
    """A pytree with the variables of a training."""

    step: jax.Array  # int32 scalar: steps done
    params: Any  # trained parameters


class Criterion(NamedTuple):
    """The validation metric that chooses the best checkpoint."""

    metric: str = "accuracy"
    largest: bool = True  # whether a larger value is better

    def score(self, metrics: dict[str, float]) -> float | None:
        """The figure of merit, of which more is better, or None without the metric."""
        return self.value(metrics[self.metric]) if self.metric in metrics else None

    def value(self, score: float) -> float:
        """The metric that has a score; its own inverse."""
        return score if self.largest else -score


def _illustrate(state: State, workdir: epath.Path) -> None:
    """Writes no file."""


class Task(NamedTuple):
    """The training that a config describes, without files or screen."""

    init: Callable[[], State]  # the state before the first step, on the mesh
    #: Donates the state given. The metrics are scalars by name. One that is not finite ends the training.
    train_step: Callable[[State, Any], tuple[State, dict[str, jax.Array]]]
    #: `start -> Iterator` of the batches from that step on, on the mesh. A batch depends on its number alone.
    batches: Callable[[int], Iterator[Any]]
    #: `(state, part, stop) -> metrics` of "train", "validation" or "test"; {} if the part is empty or
    #: `stop()` turned true. A value may be non-finite.
    evaluate: Callable[[State, str, Callable[[], bool]], dict[str, float]]
    learning_rate: optax.Schedule
    target: State  # shapes and shardings of the state
    steps: int  # length of the training
    about: Sequence[tuple[str, str]] = ()  # constant rows of the display
    criterion: Criterion = Criterion()
    #: `(state, workdir)`: writes pictures and files of a state. All hosts call it after every evaluation, at
    #: the end after that of the test part too. Only process 0 may write.
    illustrate: Callable[[State, epath.Path], None] = _illustrate
    may_differ: Sequence[str] = MAY_DIFFER  # keys of the config that may change before a training resumes
    #: Facts about the data that a checkpoint depends on, such as the class of each category. They join the
    #: config in the work directory, which then refuses other ones.
    identity: Mapping[str, Any] = {}


#: `(config, devices) -> Task` on devices, by default all devices of all hosts.
Builder = Callable[..., Task]


def about(config: ConfigDict, data: str) -> list[tuple[str, str]]:
    """The rows of the display that every task has; `data` is the name of the data set."""
    return [("model", config.model.name), ("layer", config.layer.spec), ("data", data)]
