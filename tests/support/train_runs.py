"""Small trainings on made-up images for tests, in a process of their own, and what they leave behind."""

import time

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


def saved_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def start(workdir, *flags, program=("-m", "experiments.train"), **overrides):
    """A training with `SETTINGS` on one device, and what else is given.

    With the eight devices of the tests a step takes many times as long.
    """
    flags = [*flags, *(f"--config.{key}={value}" for key, value in (SETTINGS | overrides).items())]
    return mains.launch(
        *program, "--config=experiments/configs/train.py:quick", f"--workdir={workdir}", *flags
    )


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
