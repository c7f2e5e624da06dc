"""Trains one network with one layer on one data set, from a config to the test accuracy."""

import contextlib
import json
import math
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
from evonorms_jax.runs import provenance
from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.runs.display import Display
from evonorms_jax.runs.files import absolute, write_whole
from evonorms_jax.runs.interrupt import stop_requested
from evonorms_jax.runs.metrics import JsonLines, Scalars, as_json
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.training.steps import Metrics, TrainState
from evonorms_jax.training.task import Task, build_task

RESULT, LOST = "result.json", "lost.json"
CHECKPOINTS = "checkpoints"
# Steps handed to the devices beyond the one waited for: enough to keep them busy. More would only take
# memory, and CPU devices can deadlock over collectives that nobody waits for.
_AHEAD = 2
# Steps between two times that hosts ask each other whether to stop: a preempted one has seconds left.
_AGREE_EVERY = 10
_FLUSH_SECONDS = 60.0  # after which points are in the files, without a checkpoint too
# Of a config, what may change before a training goes on: where and how fast it reads, how often it writes,
# and the order of sums, which leaves results the same to rounding only, as another number of devices does.
MAY_DIFFER = (
    *("data.data_dir", "data.threads", "data.workers", "log_every", "eval_every", "checkpoint_every"),
    *("accumulate", "eval_batch_size"),
)


class Result(NamedTuple):
    """How a training ended; loss and accuracy of the parts that were not trained on, {} of an empty one.

    A loss that is not finite is None: an image without finite logits is wrong, and the others count.
    """

    steps: int
    parameters: int  # numbers trained
    validation: dict[str, float | None]
    test: dict[str, float | None]


def train(config: ConfigDict, workdir: epath.PathLike) -> Result:
    """Trains as the config says, or goes on with it, and evaluates, at the end on the test part too.

    On several hosts, each calls it after `jax.distributed.initialize`; process 0 writes.

    Args:
      config: `experiments/configs/train.py` says what the keys mean. A training goes on with the one that it
        was begun with, but for `MAY_DIFFER`.
      workdir: gets `config.json`, `checkpoints/`, `tensorboard/`, `metrics.jsonl` and, at the end,
        `result.json`, or `lost.json` if it was lost. One that has its result is left as it is.

    Raises:
      ValueError: if the config asks for what is not there, or the work directory is not its own.
      WorkdirInUseError: if another process holds the work directory.
      DataNotFoundError: if the data are not there.
      FloatingPointError: if the loss or the gradient is not finite; names the step.
      KeyboardInterrupt: on Ctrl-C or SIGTERM, after saving.
    """
    task = build_task(config)
    # Only a config that can be trained claims the directory, and a mistyped one can be corrected.
    described, writes = describe(config), jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        workdir = absolute(workdir)
        if writes:
            stack.enter_context(claim_workdir(workdir, described, MAY_DIFFER))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("work directory")
        if (workdir / RESULT).exists():
            written = json.loads((workdir / RESULT).read_text())
            return Result(**{name: written[name] for name in Result._fields})
        folder = workdir / CHECKPOINTS
        checkpoints = stack.enter_context(Checkpoints(folder, background=True, write=writes))
        stopped = stack.enter_context(stop_requested())
        # Going on: 1. The newest sound checkpoint has the state and, as its step, the place in the data.
        restored = checkpoints.restore(task.target)
        state = task.init() if restored is None else restored.arrays
        step = int(state.step)
        about = [("model", config.model.name), ("layer", config.layer.spec), ("data", task.data)]
        # 2. The curves lose what lies beyond it.
        curves = []
        if writes:
            curves.append(stack.enter_context(Scalars(workdir / "tensorboard", step=step)))
            curves.append(JsonLines(workdir / "metrics.jsonl", step=step))
        display = stack.enter_context(Display("training", console=None if writes else Console(quiet=True)))
        run = _Run(task, about, {"config": described}, checkpoints, curves, display, stopped, writes)
        # 3. The evaluation that what was stopped there had no time for.
        if step and _due(step, task.steps, config.eval_every) and checkpoints.score(step) is None:
            run.add_score(step, run.validate(step, state))
        # 4. The steps that are left, and the result.
        try:
            state = _train(run, state, config)
        except FloatingPointError as error:
            if writes:
                write_whole(workdir / LOST, json.dumps({"error": str(error)}) + "\n")
            raise
        result = _result(run, state)
        if writes:
            checkpoints.wait()
            place = provenance.hardware() | {"jax": provenance.versions()["jax"]}
            written = result._asdict() | {"hardware": place, "date": provenance.now().date().isoformat()}
            write_whole(workdir / RESULT, json.dumps(written, indent=1) + "\n")
    return result


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
        """The accuracy on the validation part, which goes to the curves.

        None if the part is empty, or a host was asked to stop meanwhile.
        """
        found = self.task.evaluate(state, "validation", self.stop_now)
        self.write(step, "validation", found)
        return found.get("accuracy")

    def save(self, step: int, state: TrainState, score: float | None) -> None:
        """Saves where the run could go on."""
        if self.writes:
            self.flush()
            self.checkpoints.save(step, record=self.record, arrays=state, score=score)

    def add_score(self, step: int, score: float | None) -> None:
        """Gives the checkpoint of a step its score, if there is one."""
        if self.writes and score is not None:
            self.flush()
            self.checkpoints.add_score(step, score)

    def flush(self) -> None:
        """Returns when all points are in the files."""
        for curves in self.curves:
            curves.flush()

    def stop_now(self, step: int = 0) -> bool:
        """Whether any host was asked to stop; all ask together, and after a step only at every so many."""
        if jax.process_count() == 1:
            return self.stopped()
        if step % _AGREE_EVERY:
            return False
        return bool(np.any(multihost_utils.process_allgather(np.array(self.stopped()))))

    def interrupt(self, step: int) -> None:
        """Ends a run that was saved at a step."""
        self.checkpoints.wait()
        raise KeyboardInterrupt(
            f"stopped and saved at step {step} of {self.task.steps}; the same command goes on from there"
        )


def _result(run: _Run, state: TrainState) -> Result:
    step = int(state.step)
    validation, test = (run.task.evaluate(state, part, run.stop_now) for part in ("validation", "test"))
    run.write(step, "test", test)
    run.flush()
    if run.stop_now():
        run.interrupt(step)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    return Result(step, parameters, as_json(validation), as_json(test))


def _train(run: _Run, state: TrainState, config: ConfigDict) -> TrainState:
    """The training loop, from `state` to the last step."""
    task, done = run.task, int(state.step)
    recent, rows, since, flushed = [], {"state": "building the programs"}, None, time.monotonic()
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
        stop = run.stop_now(done)
        due = _due(done, task.steps, config.eval_every)
        save = stop or due or done % config.checkpoint_every == 0
        rows.pop("state", None)

        # -- What it did: before a checkpoint in any case, so that none holds a training that is lost
        if save or done % config.log_every == 0:
            means = _means(recent, done)
            means["learning_rate"] = float(task.learning_rate(done - 1))
            means |= _speed(since, len(recent), config.batch_size)
            recent, since = [], time.monotonic()
            run.write(done, "train", means)
            rows.update({name.replace("_", " "): f"{value:.4g}" for name, value in means.items()})
        score = None
        if due and not stop:
            score = run.validate(done, state)
            stop = run.stop_now()
            if score is not None:
                rows["validation accuracy"] = f"{score:.4f} at step {done}"
            since = None  # the evaluation would count as training
        if time.monotonic() - flushed > _FLUSH_SECONDS:
            run.flush()
            flushed = time.monotonic()
        show()

        # -- Where it could go on
        if save:
            run.save(done, state, score)
        if stop:
            run.interrupt(done)
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
                named = name.replace("_", " ")
                raise FloatingPointError(f"the {named} is {value} at step {step}: the training is lost")
    return {name: float(np.mean([metrics[name] for metrics in values])) for name in values[0]}


def describe(config: ConfigDict) -> dict[str, Any]:
    """The config, with the equation of a layer that comes from a file: a search may rewrite the file."""
    described = config.to_dict()
    if ".json" in config.layer.spec:
        described["layer"]["equation"] = str(load_layer(config.layer.spec))
    return described
