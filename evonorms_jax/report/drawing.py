"""Modules that draw need matplotlib, which is an extra."""

import importlib
from types import ModuleType


def load(module: str, product: str = "figure") -> ModuleType:
    """Imports a module that draws. Call it early, so that a missing matplotlib fails before a long run.

    Args:
      module: full name of the module.
      product: word for the picture in the message.

    Raises:
      ModuleNotFoundError: matplotlib is missing. The message says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise ModuleNotFoundError(
            f"the {product} needs matplotlib: pip install evonorms-jax[demo]", name="matplotlib"
        ) from None
