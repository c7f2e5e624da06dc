"""Packages that only some parts need: extras of setup.py, and the baselines of benchmarks."""

import importlib
import shlex
from collections.abc import Sequence


def require(packages: Sequence[str], purpose: str, *, install: str) -> None:
    """Imports packages. Call it early, so that a missing one fails before a long run.

    Args:
      packages: names of packages or modules, as Python imports them.
      purpose: subject of the message, such as "the report".
      install: arguments of pip, such as "evonorms-jax[demo]", with spaces between them.

    Raises:
      ModuleNotFoundError: if one is not installed, or a package that it needs. The message names it and has
        the command that installs it.
    """
    try:
        for package in packages:
            importlib.import_module(package)
    except ModuleNotFoundError as error:
        command = f"pip install {shlex.join(install.split())}"
        raise ModuleNotFoundError(f"{purpose} needs {error.name}: {command}", name=error.name) from None


def require_matplotlib(purpose: str = "the figure") -> None:
    """Imports matplotlib, see `require`. Modules that draw are imported where they are used, after this."""
    require(("matplotlib",), purpose, install="evonorms-jax[demo]")
