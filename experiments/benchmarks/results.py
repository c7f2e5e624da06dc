"""The results of a benchmark: the machine and the date that head every table, and the file of the numbers."""

import json
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from rich.console import Console
from rich.table import Table

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


def publish(workdir: str, name: str, measured: Mapping[str, Any], *parts: Table | str) -> None:
    """Prints the machine of a result and the tables and lines that show it, and writes it.

    Args:
      workdir: directory of the file.
      name: name of the file.
      measured: JSON object with the result of `machine()` at "machine".
      *parts: tables and lines to print.
    """
    console, here = Console(), measured["machine"]
    counts = f"{here['cores']} cores, {here['devices']} devices of JAX"
    console.print(f"{here['device']}, {counts} {here['jax']}, {here['date']}", highlight=False)
    for part in parts:
        console.print(part, highlight=False, soft_wrap=isinstance(part, str))
    print(f"written to {write(workdir, name, measured)}")


def write(workdir: str, name: str, results: Mapping[str, Any]) -> epath.Path:
    """Writes the results as JSON to `name` in the directory, creates it if needed, and returns the path."""
    path = absolute(workdir)
    path.mkdir(parents=True, exist_ok=True)
    write_whole(path / name, json.dumps(results, indent=1) + "\n")
    return path / name
