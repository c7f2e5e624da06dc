"""Trains one network with one layer on one data set, from a config to the test accuracy."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from evonorms_jax.data import EvalBatches, ImageData, eval_batches, load
from evonorms_jax.layers import load_layer, norm_act
from evonorms_jax.models import get_model
from evonorms_jax.training.checkpoint import Checkpoints
from evonorms_jax.training.display import Display
from evonorms_jax.training.interrupt import stop_requested
from evonorms_jax.training.mesh import check_divisible, data_mesh, replicated
from evonorms_jax.training.metrics import Scalars
from evonorms_jax.training.optimizer import make_schedule, sgd
from evonorms_jax.training.steps import (
    Batching,
    Metrics,
    TrainState,
    make_evaluate,
    make_init,
    make_train_step,
    training_set,
)
from evonorms_jax.training.workdir import claim_workdir, write_whole

RESULT = "result.json"
# Steps handed to the devices beyond the one waited for: enough to keep them busy. More would only take
# memory, and CPU devices can deadlock over collectives that nobody waits for.
_AHEAD = 2


class Task(NamedTuple):
    """The training that a config describes, without files or screen."""

    init: Callable[[], TrainState]
    train_step: Callable[[TrainState], tuple[TrainState, Metrics]]  # donates the state
    evaluate: Callable[[TrainState, EvalBatches], dict[str, float]]
    learning_rate: optax.Schedule
    target: TrainState  # shapes and shardings of the state


class Result(NamedTuple):
    """How a training ended; loss and accuracy of the parts that were not trained on."""

    steps: int
    parameters: int  # numbers trained
    validation: dict[str, float]
    test: dict[str, float]


def train(config: ConfigDict, workdir: epath.PathLike) -> Result:
    """Trains as the config says, or goes on with it, and evaluates; the only reader of the test part.

    Args:
      config: `experiments/configs/train.py` says what the keys mean.
      workdir: gets `config.json`, `checkpoints/`, `tensorboard/` and, at the end, `result.json`.

    Raises:
      ValueError: if the config asks for what is not there, or the work directory is not its own.
      DataNotFoundError: if the data are not there.
      FloatingPointError: if the loss is not finite; names the step.
      KeyboardInterrupt: on Ctrl-C or SIGTERM, after saving.
    """
    data_config = config.data.to_dict()
    batching = Batching(config.batch_size, data_config.pop("crop"), data_config.pop("flip"))
    data = load(**data_config, with_test=True)
    task = build_task(config, data, batching, data_mesh())
    validation, test = (eval_batches(part, config.eval_batch_size) for part in (data.validation, data.test))
    # Only a config that can be trained claims the directory, and a mistyped one can be corrected.
    described = _describe(config)
    workdir = claim_workdir(workdir, described)
    with Checkpoints(workdir / "checkpoints") as checkpoints, stop_requested() as stopped:
        state = start(task, checkpoints)
        about = [("model", config.model.name), ("layer", config.layer.spec), ("data", data.name)]
        curves = Scalars(workdir / "tensorboard", step=int(state.step))
        with curves as scalars, Display("training") as display:
            run = _Run(task, validation, about, {"config": described}, checkpoints, scalars, display, stopped)
            state = _train(run, state, config)
            result = Result(
                steps=int(state.step),
                parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)),
                validation=task.evaluate(state, validation),
                test=task.evaluate(state, test),
            )
            for part in ("validation", "test"):
                scalars.write(result.steps, _tagged(part, getattr(result, part)))
    write_whole(workdir / RESULT, json.dumps(result._asdict(), indent=1) + "\n")
    return result


def build_task(config: ConfigDict, data: ImageData, batching: Batching, mesh: Mesh) -> Task:
    """The task of a config on a mesh; traced once, so that what cannot be trained fails here.

    Raises:
      ValueError: as `train`.
    """
    for name in ("steps", "log_every", "eval_every", "checkpoint_every"):
        if config[name] < 1:
            raise ValueError(f"{name} must be at least 1, got {config[name]}")
    check_divisible("batch_size", config.batch_size, mesh)
    check_divisible("eval_batch_size", config.eval_batch_size, mesh)

    # -- Model and optimizer
    layer = config.layer.to_dict()
    overrides = {} if config.model.width is None else {"width": config.model.width}
    network = get_model(config.model.name)
    model = network.build(norm_act(layer.pop("spec"), **layer), data.num_classes, **overrides)
    settings = config.optimizer.to_dict()
    regularization = {name: settings.pop(name) for name in ("momentum", "weight_decay")}
    schedule = make_schedule(steps=config.steps, **settings)
    optimizer = sgd(schedule, **regularization)

    # -- Pure functions, bound to their data and keys
    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    init = make_init(model, optimizer, data, mesh)
    step = make_train_step(model, optimizer, batching, mesh, label_smoothing=config.label_smoothing)
    examples = training_set(data, mesh)
    shapes = jax.eval_shape(init, init_key)
    jax.eval_shape(step, shapes, examples, train_key)
    return Task(
        init=lambda: init(init_key),
        train_step=lambda state: step(state, examples, train_key),
        evaluate=make_evaluate(model, data, mesh),
        learning_rate=schedule,
        target=jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)), shapes
        ),
    )


def start(task: Task, checkpoints: Checkpoints) -> TrainState:
    """The state that a training goes on from.

    1. The newest sound checkpoint of the work directory.
    2. Where there is none, the initial state of the config's seed.
    """
    restored = checkpoints.restore(task.target)
    return task.init() if restored is None else restored.arrays


class _Run(NamedTuple):
    """A task with all that it reads and writes while it runs."""

    task: Task
    validation: EvalBatches
    about: Sequence[tuple[str, str]]  # rows of the display that stay
    record: dict[str, Any]  # goes into every checkpoint
    checkpoints: Checkpoints
    scalars: Scalars
    display: Display
    stopped: Callable[[], bool]


def _train(run: _Run, state: TrainState, config: ConfigDict) -> TrainState:
    """The training loop, from `state` to the last step."""
    done, recent, rows = int(state.step), [], {"state": "building the programs"}

    def show():
        run.display.update(completed=done, total=config.steps, rows=[*run.about, *rows.items()])

    show()
    while done < config.steps:
        # -- One step
        state, metrics = run.task.train_step(state)
        done += 1
        recent.append(metrics)
        if len(recent) > _AHEAD:
            jax.block_until_ready(recent[-1 - _AHEAD])
        stop = run.stopped()
        last = stop or done == config.steps
        rows.pop("state", None)

        # -- What it did: before a checkpoint in any case, so that none holds a training that is lost
        if last or done % config.log_every == 0 or done % config.checkpoint_every == 0:
            means = _means(recent, done)
            recent.clear()
            means["learning_rate"] = float(run.task.learning_rate(done - 1))
            run.scalars.write(done, _tagged("train", means))
            rows.update({name: f"{value:.4g}" for name, value in means.items()})
        if done % config.eval_every == 0 and not last:
            found = run.task.evaluate(state, run.validation)
            run.scalars.write(done, _tagged("validation", found))
            rows["validation accuracy"] = f"{found['accuracy']:.4f} at step {done}"
        show()

        # -- Where it could go on
        if last or done % config.checkpoint_every == 0:
            run.scalars.flush()
            run.checkpoints.save(done, record=run.record, arrays=state)
        if stop and done < config.steps:
            raise KeyboardInterrupt(
                f"stopped and saved at step {done} of {config.steps}; the same command goes on from there"
            )
    return state


def _means(recent: Sequence[Metrics], done: int) -> dict[str, float]:
    """The mean of each metric over the steps up to `done`, all of which must be finite."""
    steps = range(done - len(recent) + 1, done + 1)
    values = jax.device_get(recent)
    for step, metrics in zip(steps, values, strict=True):
        for name, value in metrics.items():
            if not np.isfinite(value):
                raise FloatingPointError(f"the {name} is {value} at step {step}: the training is lost")
    return {name: float(np.mean([metrics[name] for metrics in values])) for name in values[0]}


def _tagged(part: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{part}/{name}": value for name, value in values.items()}


def _describe(config: ConfigDict) -> dict[str, Any]:
    """The config, with the equation of a layer that comes from a file: a search may rewrite the file."""
    described = config.to_dict()
    if ".json" in config.layer.spec:
        described["layer"]["equation"] = str(load_layer(config.layer.spec))
    return described
