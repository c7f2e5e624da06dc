"""Modules that draw need matplotlib, which is an extra."""

import importlib
from types import ModuleType


def load(module: str) -> ModuleType:
    """Imports a module that draws; to be called before the hours that the rest takes.

    Raises:
      ModuleNotFoundError: if matplotlib is missing; says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise ModuleNotFoundError(
            "the figure needs matplotlib: pip install evonorms-jax[demo]", name="matplotlib"
        ) from None
