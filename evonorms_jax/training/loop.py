"""The training loop of any task, from a config to the metrics of the test part."""

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
from evonorms_jax.training.classification import build_task
from evonorms_jax.training.task import Builder, State, Task

RESULT, LOST = "result.json", "lost.json"
CHECKPOINTS = "checkpoints"
# Steps dispatched beyond the one waited for. Two keep the devices busy. More cost memory, and CPU devices can
# deadlock over collectives that the host does not wait for.
_AHEAD = 2
# Steps between two votes of the hosts on whether to stop: a preempted host has seconds left.
_AGREE_EVERY = 10
_FLUSH_SECONDS = 60.0  # the longest time that a point of a curve waits to be written


class Result(NamedTuple):
    """The end of a training: the metrics of validation and test part, {} for an empty part.

    A metric that is not finite is None. The accuracy of a classifier with such a loss remains valid: images
    without finite logits are wrong.
    """

    steps: int
    parameters: int  # number of trained scalars
    validation: dict[str, float | None]
    test: dict[str, float | None]


def train(config: ConfigDict, workdir: epath.PathLike, build: Builder | None = None) -> Result:
    """Starts or resumes the training of a config, and evaluates it, at the end on the test part too.

    On several hosts, each calls it after `jax.distributed.initialize`; process 0 writes.

    Args:
      config: config with the keys that `build` reads, `batch_size`, `layer`, `log_every`, `eval_every` and
        `checkpoint_every`. To resume, it must equal the one that the training started with except for the
        task's `may_differ`.
      workdir: work directory, which gets `config.json`, `checkpoints/`, `tensorboard/`, `metrics.jsonl`, the
        task's own files and, at the end, `result.json`, or `lost.json` if the training is lost. A finished
        one is left unchanged.
      build: builder of the task, by default that of a classifier.

    Raises:
      ValueError: if a setting is wrong, or the work directory belongs to another config.
      WorkdirInUseError: if another process holds the work directory.
      DataNotFoundError: if the data are missing.
      FloatingPointError: if a metric of a step is not finite; names both.
      KeyboardInterrupt: on Ctrl-C or SIGTERM, after saving.
    """
    task = (build or build_task)(config)
    # Only a config that can be trained claims the directory, so that a mistyped one can be corrected.
    described, writes = describe(config) | dict(task.identity), jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        workdir = absolute(workdir)
        if writes:
            stack.enter_context(claim_workdir(workdir, described, task.may_differ))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("work directory")
        if (workdir / RESULT).exists():
            written = json.loads((workdir / RESULT).read_text())
            return Result(**{name: written[name] for name in Result._fields})
        folder = workdir / CHECKPOINTS
        checkpoints = stack.enter_context(Checkpoints(folder, background=True, write=writes))
        stopped = stack.enter_context(stop_requested())
        # How a training resumes: 1. Restore the newest sound checkpoint. Its step is the place in the data.
        restored = checkpoints.restore(task.target)
        state = task.init() if restored is None else restored.arrays
        step = int(state.step)
        # 2. Cut the curves off after that step.
        curves = []
        if writes:
            curves.append(stack.enter_context(Scalars(workdir / "tensorboard", step=step)))
            curves.append(JsonLines(workdir / "metrics.jsonl", step=step))
        display = stack.enter_context(Display("training", console=None if writes else Console(quiet=True)))
        run = _Run(task, workdir, {"config": described}, checkpoints, curves, display, stopped, writes)
        # 3. Run the evaluation that was due when the training was interrupted.
        found = None
        if step and _due(step, task.steps, config.eval_every) and checkpoints.score(step) is None:
            found = run.validate(step, state)
            run.add_score(step, task.criterion.score(found))
        # 4. Run the remaining steps, and write the result.
        try:
            if step < task.steps:
                state, found = _train(run, state, config)
        except FloatingPointError as error:
            if writes:
                write_whole(workdir / LOST, json.dumps({"error": str(error)}) + "\n")
            raise
        result = _result(run, state, found)
        if writes:
            checkpoints.wait()
            _write_result(workdir / RESULT, result)
    return result


def _write_result(path: epath.Path, result: Result) -> None:
    hardware = provenance.hardware() | {"jax": provenance.versions()["jax"]}
    written = result._asdict() | {"hardware": hardware, "date": provenance.now().date().isoformat()}
    write_whole(path, json.dumps(written, indent=1) + "\n")


class _Run(NamedTuple):
    """A task with the files and the screen that it writes to."""

    task: Task
    workdir: epath.Path
    record: dict[str, Any]  # record of every checkpoint
    checkpoints: Checkpoints
    curves: Sequence[Scalars | JsonLines]  # empty if another process writes
    display: Display
    stopped: Callable[[], bool]
    writes: bool

    def write(self, step: int, part: str, values: dict[str, float]) -> None:
        """Adds a point to the curves `PART/NAME`."""
        for curves in self.curves if values else ():
            curves.write(step, {f"{part}/{name}": value for name, value in values.items()})

    def evaluate(self, state: State, part: str) -> dict[str, float]:
        """The metrics of a part; {} if it is empty, or a host was asked to stop meanwhile."""
        return self.task.evaluate(state, part, self.stop_now)

    def validate(self, step: int, state: State) -> dict[str, float]:
        """The metrics of the validation part, added to the curves, and the pictures of the state.

        {} if the part is empty, or a host was asked to stop meanwhile.
        """
        found = self.evaluate(state, "validation")
        self.write(step, "validation", found)
        if found:
            self.task.illustrate(state, self.workdir)
        return found

    def save(self, step: int, state: State, score: float | None) -> None:
        """Saves a checkpoint."""
        if self.writes:
            self.flush()
            self.checkpoints.save(step, record=self.record, arrays=state, score=score)

    def add_score(self, step: int, score: float | None) -> None:
        """Gives the checkpoint of a step its score, if there is a score."""
        if self.writes and score is not None:
            self.flush()
            self.checkpoints.add_score(step, score)

    def flush(self) -> None:
        """Writes all points to the files."""
        for curves in self.curves:
            curves.flush()

    def stop_now(self, step: int = 0) -> bool:
        """Whether any host was asked to stop. All hosts vote together, after every tenth step."""
        if jax.process_count() == 1:
            return self.stopped()
        if step % _AGREE_EVERY:
            return False
        return bool(np.any(multihost_utils.process_allgather(np.array(self.stopped()))))

    def interrupt(self, step: int) -> None:
        """Ends a run after its checkpoint of a step."""
        self.checkpoints.wait()
        raise KeyboardInterrupt(
            f"stopped and saved at step {step} of {self.task.steps}; the same command resumes from there"
        )


def _result(run: _Run, state: State, validation: dict[str, float] | None) -> Result:
    """The result of the last state. `validation` holds its metrics if it was evaluated just now."""
    step = int(state.step)
    if validation is None:
        validation = run.validate(step, state)
    test = run.evaluate(state, "test")
    run.write(step, "test", test)
    if test:
        run.task.illustrate(state, run.workdir)
    run.flush()
    if run.stop_now():
        run.interrupt(step)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    return Result(step, parameters, as_json(validation), as_json(test))


def _train(run: _Run, state: State, config: ConfigDict) -> tuple[State, dict[str, float]]:
    """The training loop, from `state` to the last step: the last state and its validation metrics."""
    task, criterion, done = run.task, run.task.criterion, int(state.step)
    recent, rows, since, flushed = [], {"state": "building the programs"}, None, time.monotonic()
    batches = task.batches(done)

    def show():
        run.display.update(completed=done, total=task.steps, rows=[*task.about, *rows.items()])

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

        # -- Its metrics, checked before every checkpoint, so that no checkpoint holds a lost training
        if save or done % config.log_every == 0:
            means = _means(recent, done)
            means["learning_rate"] = float(task.learning_rate(done - 1))
            means |= _speed(since, len(recent), config.batch_size)
            recent, since = [], time.monotonic()
            run.write(done, "train", means)
            rows.update({name.replace("_", " "): f"{value:.4g}" for name, value in means.items()})
        score, found = None, {}
        if due and not stop:
            found = run.validate(done, state)
            score, stop = criterion.score(found), run.stop_now()
            if score is not None:
                rows[f"validation {criterion.metric}"] = f"{criterion.value(score):.4f} at step {done}"
            since = None  # or the evaluation would count as training time
        if time.monotonic() - flushed > _FLUSH_SECONDS:
            run.flush()
            flushed = time.monotonic()
        show()

        # -- Checkpoint
        if save:
            run.save(done, state, score)
        if stop:
            run.interrupt(done)
    return state, found


def _due(done: int, steps: int, every: int) -> bool:
    """Whether an evaluation follows a step."""
    return done % every == 0 or done == steps


def _speed(since: float | None, steps: int, batch_size: int) -> dict[str, float]:
    """Speed of the steps since a time; {} where the time is None, since programs were built."""
    if since is None:
        return {}
    seconds = (time.monotonic() - since) / steps
    return {"step_seconds": seconds, "images_per_second": batch_size / seconds}


def _means(recent: Sequence[dict[str, jax.Array]], done: int) -> dict[str, float]:
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
    """The config, with the equation of a layer from a file, since a search may rewrite the file."""
    described = config.to_dict()
    if ".json" in config.layer.spec:
        described["layer"]["equation"] = str(load_layer(config.layer.spec))
    return described
