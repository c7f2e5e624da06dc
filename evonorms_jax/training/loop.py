"""Trains one network with one layer on one data set, from a config to the test accuracy."""

import contextlib
import datetime
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from rich.console import Console

from evonorms_jax.layers import load_layer
from evonorms_jax.training.checkpoint import Checkpoints
from evonorms_jax.training.display import Display
from evonorms_jax.training.interrupt import stop_requested
from evonorms_jax.training.metrics import JsonLines, Scalars
from evonorms_jax.training.steps import Metrics, TrainState
from evonorms_jax.training.task import Task, build_task
from evonorms_jax.training.workdir import absolute, claim_workdir, read_config, write_whole

RESULT, LOST = "result.json", "lost.json"
CHECKPOINTS = "checkpoints"
# Steps handed to the devices beyond the one waited for: enough to keep them busy. More would only take
# memory, and CPU devices can deadlock over collectives that nobody waits for.
_AHEAD = 2


class Result(NamedTuple):
    """How a training ended; loss and accuracy of the parts that were not trained on, {} of an empty one."""

    steps: int
    parameters: int  # numbers trained
    validation: dict[str, float]
    test: dict[str, float]


def train(config: ConfigDict, workdir: epath.PathLike) -> Result:
    """Trains as the config says, or goes on with it, and evaluates; the only reader of the test part.

    On several hosts, each calls it after `jax.distributed.initialize`; process 0 writes.

    Args:
      config: `experiments/configs/train.py` says what the keys mean.
      workdir: gets `config.json`, `checkpoints/`, `tensorboard/`, `metrics.jsonl` and, at the end,
        `result.json`, or `lost.json` if the loss was not finite. One that has its result is left as it is.

    Raises:
      ValueError: if the config asks for what is not there, or the work directory is not its own.
      DataNotFoundError: if the data are not there.
      FloatingPointError: if the loss is not finite; names the step.
      KeyboardInterrupt: on Ctrl-C or SIGTERM, after saving.
    """
    task = build_task(config)
    # Only a config that can be trained claims the directory, and a mistyped one can be corrected.
    described, writes = describe(config), jax.process_index() == 0
    workdir = claim_workdir(workdir, described) if writes else absolute(workdir)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("work directory")
    if (workdir / RESULT).exists():
        written = json.loads((workdir / RESULT).read_text())
        return Result(**{name: written[name] for name in Result._fields})
    with contextlib.ExitStack() as stack:
        folder = workdir / CHECKPOINTS
        checkpoints = stack.enter_context(Checkpoints(folder, background=True, write=writes))
        stopped = stack.enter_context(stop_requested())
        restored = checkpoints.restore(task.target)
        state = task.init() if restored is None else restored.arrays
        step = int(state.step)
        about = [("model", config.model.name), ("layer", config.layer.spec), ("data", task.data)]
        curves = []
        if writes:
            curves.append(stack.enter_context(Scalars(workdir / "tensorboard", step=step)))
            curves.append(JsonLines(workdir / "metrics.jsonl", step=step))
        display = stack.enter_context(Display("training", console=None if writes else Console(quiet=True)))
        run = _Run(task, about, {"config": described}, checkpoints, curves, display, stopped, writes)
        if step and _due(step, task.steps, config.eval_every) and checkpoints.score(step) is None:
            # What was stopped here had no time for it.
            run.save(step, state, run.validate(step, state))
        try:
            state = _train(run, state, config)
        except FloatingPointError as error:
            if writes:
                write_whole(workdir / LOST, json.dumps({"error": str(error)}) + "\n")
            raise
        result = _result(task, state)
        run.write(result.steps, "test", result.test)
        run.flush()
    if writes:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        written = result._asdict() | {"hardware": hardware(), "date": today}
        write_whole(workdir / RESULT, json.dumps(written, indent=1) + "\n")
    return result


def _result(task: Task, state: TrainState) -> Result:
    return Result(
        steps=int(state.step),
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)),
        validation=task.evaluate(state, "validation"),
        test=task.evaluate(state, "test"),
    )


def hardware() -> dict[str, str | int]:
    """What trains here, as `result.json` has it."""
    devices = jax.devices()
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "machine": platform.machine(),
        "jax": jax.__version__,
    }


def evaluate(
    workdir: epath.PathLike, part: str, *, best: bool = False, data_dir: str | None = None
) -> tuple[int, dict[str, float]]:
    """What a checkpoint of a training reaches on a part of its data: its step, loss and accuracy.

    Args:
      workdir: of the training.
      part: "train", "validation" or "test".
      best: the checkpoint with the best validation accuracy instead of the newest.
      data_dir: of tfds, if the data are not where they were.

    Raises:
      ValueError: if it is no work directory of a training, its layer file has changed, it has no checkpoint,
        or the part is empty.
      DataNotFoundError: if the data are not there.
    """
    workdir = absolute(workdir)
    written = read_config(workdir)
    if "model" not in written:
        raise ValueError(f"{workdir} is no work directory of a training")
    written["layer"].pop("equation", None)
    config = ConfigDict(written)
    claim_workdir(workdir, describe(config))
    if data_dir is not None:
        config.data.data_dir = data_dir
    task = build_task(config)
    with Checkpoints(workdir / CHECKPOINTS, write=False) as checkpoints:
        restored = checkpoints.restore(task.target, best=best)
    if restored is None:
        raise ValueError(f"{workdir} has no checkpoint yet")
    found = task.evaluate(restored.arrays, part)
    if not found:
        raise ValueError(f"the {part} part of {task.data} is empty")
    return restored.step, found


class _Run(NamedTuple):
    """A task with all that it reads and writes while it runs."""

    task: Task
    about: Sequence[tuple[str, str]]  # rows of the display that stay
    record: dict[str, Any]  # goes into every checkpoint
    checkpoints: Checkpoints
    curves: Sequence[Scalars | JsonLines]  # none where another process writes
    display: Display
    stopped: Callable[[], bool]
    writes: bool

    def write(self, step: int, part: str, values: dict[str, float]) -> None:
        """Adds a point to the curves `PART/NAME`."""
        for curves in self.curves if values else ():
            curves.write(step, {f"{part}/{name}": value for name, value in values.items()})

    def validate(self, step: int, state: TrainState) -> float | None:
        """The accuracy on the validation part, which goes to the curves; None if the part is empty."""
        found = self.task.evaluate(state, "validation")
        self.write(step, "validation", found)
        return found.get("accuracy")

    def save(self, step: int, state: TrainState, score: float | None) -> None:
        """Saves where the run could go on."""
        if self.writes:
            self.flush()
            self.checkpoints.save(step, record=self.record, arrays=state, score=score)

    def flush(self) -> None:
        """Returns when all points are in the files."""
        for curves in self.curves:
            curves.flush()

    def stop_now(self, step: int, every: int) -> bool:
        """Whether to stop after this step; hosts agree on it at every so many steps."""
        if jax.process_count() == 1:
            return self.stopped()
        if step % every:
            return False
        return bool(np.any(multihost_utils.process_allgather(np.array(self.stopped()))))


def _train(run: _Run, state: TrainState, config: ConfigDict) -> TrainState:
    """The training loop, from `state` to the last step."""
    task, done = run.task, int(state.step)
    recent, rows, since = [], {"state": "building the programs"}, None
    batches = task.batches(done)

    def show():
        run.display.update(completed=done, total=task.steps, rows=[*run.about, *rows.items()])

    show()
    while done < task.steps:
        # -- One step
        state, metrics = task.train_step(state, next(batches))
        done += 1
        recent.append(metrics)
        if len(recent) > _AHEAD:
            jax.block_until_ready(recent[-1 - _AHEAD])
        stop = run.stop_now(done, config.log_every)
        last = stop or done == task.steps
        rows.pop("state", None)

        # -- What it did: before a checkpoint in any case, so that none holds a training that is lost
        if last or done % config.log_every == 0 or done % config.checkpoint_every == 0:
            means = _means(recent, done)
            means["learning_rate"] = float(task.learning_rate(done - 1))
            means |= _speed(since, len(recent), config.batch_size)
            recent, since = [], time.monotonic()
            run.write(done, "train", means)
            rows.update({name.replace("_", " "): f"{value:.4g}" for name, value in means.items()})
        score = None
        if _due(done, task.steps, config.eval_every) and (not stop or done == task.steps):
            score = run.validate(done, state)
            if score is not None:
                rows["validation accuracy"] = f"{score:.4f} at step {done}"
            since = None  # the evaluation would count as training
        show()

        # -- Where it could go on
        if last or done % config.checkpoint_every == 0:
            run.save(done, state, score)
        if stop and done < task.steps:
            run.checkpoints.wait()
            raise KeyboardInterrupt(
                f"stopped and saved at step {done} of {task.steps}; the same command goes on from there"
            )
    return state


def _due(done: int, steps: int, every: int) -> bool:
    """Whether an evaluation belongs to a step."""
    return done % every == 0 or done == steps


def _speed(since: float | None, steps: int, batch_size: int) -> dict[str, float]:
    """Of the steps since a time; none of those that programs were built in."""
    if since is None:
        return {}
    seconds = (time.monotonic() - since) / steps
    return {"step_seconds": seconds, "images_per_second": batch_size / seconds}


def _means(recent: Sequence[Metrics], done: int) -> dict[str, float]:
    """The mean of each metric over the steps up to `done`, all of which must be finite."""
    steps = range(done - len(recent) + 1, done + 1)
    values = jax.device_get(recent)
    for step, metrics in zip(steps, values, strict=True):
        for name, value in metrics.items():
            if not np.isfinite(value):
                raise FloatingPointError(f"the {name} is {value} at step {step}: the training is lost")
    return {name: float(np.mean([metrics[name] for metrics in values])) for name in values[0]}


def describe(config: ConfigDict) -> dict[str, Any]:
    """The config, with the equation of a layer that comes from a file: a search may rewrite the file."""
    described = config.to_dict()
    if ".json" in config.layer.spec:
        described["layer"]["equation"] = str(load_layer(config.layer.spec))
    return described
