"""The kinds of training, by the name that a config gives as `task`."""

import importlib

import jax
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.runs.config_checks import nearest
from evonorms_jax.training.task import Task

#: Module with the `build_task` of each task, imported when the task is chosen.
MODULES = {
    "classification": "evonorms_jax.training.classification",
    "detection": "evonorms_jax.detection.task",
    "gan": "evonorms_jax.gan.task",
}


def build_task(config: ConfigDict, devices: list[jax.Device] | None = None) -> Task:
    """The task of a config.

    Args:
      config: config whose `task` is one of `MODULES`, by default "classification".
      devices: devices to train on, by default all devices of all hosts.

    Raises:
      ValueError: if the task is unknown, or it cannot be built from the config.
    """
    name = config.get("task", "classification")  # a training of an earlier version has no other one
    if name not in MODULES:
        hint = nearest(name, MODULES) or f"; known: {', '.join(MODULES)}"
        raise UserError(f"unknown task {name!r}{hint}")
    return importlib.import_module(MODULES[name]).build_task(config, devices)
