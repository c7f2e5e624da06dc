"""Packages that only some parts need: extras of setup.py, and the baselines of benchmarks."""

import importlib.util
import shlex
from collections.abc import Sequence


def require(packages: Sequence[str], purpose: str, *, install: str) -> None:
    """Looks for packages. Call it early, so that a missing one fails before a long run.

    Args:
      packages: names of packages, as Python imports them. They are not imported here.
      purpose: what needs them, the subject of the message.
      install: what pip installs, such as "evonorms-jax[demo]", or several names with spaces between them.

    Raises:
      ModuleNotFoundError: if one is not installed. The message has the command that installs it.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            command = f"pip install {shlex.join(install.split())}"
            raise ModuleNotFoundError(f"{purpose} needs {package}: {command}", name=package)


def require_matplotlib(purpose: str = "the figure") -> None:
    """Looks for matplotlib, see `require`. Modules that draw are imported where they are used, after this."""
    require(("matplotlib",), purpose, install="evonorms-jax[demo]")
