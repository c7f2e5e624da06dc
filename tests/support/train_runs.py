"""Small trainings on synthetic images for tests, in their own process or with shared programs."""

import json
import time

import jax

from support import mains

SETTINGS = {
    "steps": 60,
    "batch_size": 8,
    "eval_batch_size": 32,
    "log_every": 2,
    "eval_every": 20,
    "checkpoint_every": 3,
    "model.name": "resnet_tiny",
    "data.source": "synthetic",
    "data.image_size": 8,
    "data.train_size": 64,
    "data.crop": 6,
    "optimizer.warmup_steps": 2,
}
TRAIN = ("-m", "experiments.train")


def saved_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def start(workdir, *flags, program=TRAIN, begin=mains.fork, **overrides):
    """Starts a training with `SETTINGS` and overrides on one device, by a function of `mains`.

    With the eight devices of the tests a step takes many times as long.
    """
    flags = [*flags, *(f"--config.{key}={value}" for key, value in (SETTINGS | overrides).items())]
    return begin(*program, "--config=experiments/configs/train.py:quick", f"--workdir={workdir}", *flags)


def finish(child):
    """Exit status, output and log of a process."""
    done = mains.finish(child)
    return done.returncode, done.stdout, done.stderr


def run(workdir, **overrides):
    return finish(start(workdir, **overrides))


def manifests(workdir):
    return set((workdir / "checkpoints").glob("*/manifest.json"))


def await_checkpoint(workdir, child, before=frozenset()):
    """Returns when there is a new checkpoint, which `child` is to write."""
    while not manifests(workdir) - before:
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)


class SharedTasks:
    """`build_task`, once for each config and number of devices, since building its programs is most of a run.

    The functions of a task are pure, so trainings that stop and resume may share one.

    Attributes:
      devices: number of devices of the next task, or None for the devices that the caller names.
      last: number of the step before which the power goes off, or None.
    """

    def __init__(self, build):
        self._build, self._tasks = build, {}
        self.devices = self.last = None

    def __call__(self, config, devices=None):
        devices = devices if self.devices is None else jax.devices()[: self.devices]
        key = json.dumps([config.to_dict(), len(devices or ())], sort_keys=True)
        if key not in self._tasks:
            self._tasks[key] = self._build(config, devices)
        task, last = self._tasks[key], self.last

        def train_step(state, batch):
            if int(state.step) == last:
                raise OSError("power cut")
            return task.train_step(state, batch)

        return task if last is None else task._replace(train_step=train_step)
