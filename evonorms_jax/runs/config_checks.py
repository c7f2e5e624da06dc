"""Config files and their numbers: loads them, checks keys and ranges, each error in one line."""

import difflib
import functools
import importlib.util
import math
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict


class Range(NamedTuple):
    """Numbers from `least` on and below `below`; `closed` lets in `below` itself."""

    least: float
    below: float = math.inf
    closed: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value lies in the range; NaN lies in none."""
        return self.least <= value < self.below or (self.closed and value == self.below)

    def __str__(self):
        if self.closed:
            return f"from {self.least} to {self.below}"
        return f"at least {self.least}" + ("" if math.isinf(self.below) else f" and below {self.below}")


SEED = Range(0, 2**32)
COUNT = Range(1)
AMOUNT = Range(0)
SHARE = Range(0, 1)
PROBABILITY = Range(0, 1, closed=True)


def check_ranges(config: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Raises `ValueError` at the first number that is out of its range or missing; None stands for no number.

    Args:
      config: nested.
      ranges: by key, with dots.
    """
    for key, allowed in ranges.items():
        try:
            value = functools.reduce(operator.getitem, key.split("."), config)
        except KeyError:
            raise ValueError(f"the config has no {key}: another version of this package wrote it") from None
        if value is not None and not allowed.holds(value):
            raise ValueError(f"{key} must be {allowed}, got {value}")


class UsageError(ValueError):
    """A command line or config file that cannot be used; the message is one line."""


def load_config(path: str) -> ConfigDict:
    """Loads the config that `get_config` of a file returns; `FILE:ARGUMENT` passes it an argument.

    Raises:
      UsageError: if there is no such file, or it is no config file.
    """
    file, *arguments = path.split(":", 1)
    if not Path(file).is_file():
        folder = Path(file).parent
        found = [str(path) for path in folder.glob("*.py") if path.stem != "__init__"]
        raise UsageError(f"there is no config file {file!r}{nearest(file, found)}")
    spec = importlib.util.spec_from_file_location("config_to_check", file)
    if spec is None:
        raise UsageError(f"the config file must be Python, got {file!r}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UsageError(f"{file} is no config file: it has no function get_config")
    try:
        return module.get_config(*arguments)
    except ValueError as error:
        raise UsageError(f"--config={path}: {error}") from None


def nearest(name: str, names: Sequence[str] | Mapping[str, Any]) -> str:
    """A hint for an unknown name, `; did you mean ...?`, or nothing if no known name is close."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.3)
    return f"; did you mean {near[0]!r}?" if near else ""


def flat(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Values by dotted key, without the groups themselves."""
    values = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            values.update(flat(value, f"{prefix}{key}."))
        else:
            values[prefix + key] = value
    return values
