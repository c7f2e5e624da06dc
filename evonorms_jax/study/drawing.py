"""Modules that draw need matplotlib, which is an extra."""

import importlib
from types import ModuleType


def load(module: str) -> ModuleType:
    """Imports a module that draws. Call it early, so that a missing matplotlib fails before a long run.

    Raises:
      ModuleNotFoundError: matplotlib is missing. The message says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise ModuleNotFoundError(
            "the figure needs matplotlib: pip install evonorms-jax[demo]", name="matplotlib"
        ) from None
