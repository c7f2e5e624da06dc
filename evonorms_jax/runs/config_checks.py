"""Config files: loads them and checks their keys, each error in one line."""

import difflib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.runs.files import expanded


def load_config(path: str) -> ConfigDict:
    """Loads the config that `get_config` of a file returns; `FILE:ARGUMENT` passes it an argument.

    Raises `UserError` if there is no such file, or it is no config file.
    """
    file, *arguments = path.split(":", 1)
    file = str(expanded(file))
    if not Path(file).is_file():
        folder = Path(file).parent
        found = [str(path) for path in folder.glob("*.py") if path.stem != "__init__"]
        raise UserError(f"there is no config file {file!r}{nearest(file, found)}")
    spec = importlib.util.spec_from_file_location("config_to_check", file)
    if spec is None:
        raise UserError(f"the config file must be Python, got {file!r}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"{file} is no config file: it has no function get_config")
    try:
        return module.get_config(*arguments)
    except ValueError as error:
        raise UserError(f"--config={path}: {error}") from None


def nearest(name: str, names: Sequence[str] | Mapping[str, Any]) -> str:
    """A hint for an unknown name, `; did you mean ...?`, or "" if no known name is close."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.3)
    return f"; did you mean {near[0]!r}?" if near else ""


def flat(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Values by dotted key, without the groups themselves. An empty group is a value."""
    found = {}
    for key, value in config.items():
        is_group = isinstance(value, Mapping | ConfigDict) and len(value)
        found |= flat(value, f"{prefix}{key}.") if is_group else {prefix + key: value}
    return found
