"""The results of a benchmark: the machine and the date that head every table, and the file of the numbers."""

import json
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from evonorms_jax.runs.files import absolute, write_whole
from evonorms_jax.runs.provenance import hardware, now, versions
from experiments.flags import cores


def machine() -> dict[str, Any]:
    """The hardware, the version of JAX, and the time, as a JSON object."""
    here = hardware()
    return {
        "device": here["device"],
        "platform": jax.default_backend(),
        "devices": here["devices"],
        "cores": cores(),
        "jax": versions()["jax"],
        "date": now().isoformat(timespec="seconds"),
    }


def headline(machine: Mapping[str, Any]) -> str:
    """The result of `machine()` as one line."""
    counts = f"{machine['cores']} cores, {machine['devices']} devices of JAX"
    return f"{machine['device']}, {counts} {machine['jax']}, {machine['date']}"


def write(workdir: str, name: str, results: Mapping[str, Any]) -> epath.Path:
    """Writes the results as JSON to `name` in the directory, creates it if needed, and returns the path."""
    path = absolute(workdir)
    path.mkdir(parents=True, exist_ok=True)
    write_whole(path / name, json.dumps(results, indent=1) + "\n")
    return path / name
