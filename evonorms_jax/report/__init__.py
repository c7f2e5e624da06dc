"""The report of a search: figures, drawn graphs, one HTML page."""

import os

from etils import epath

from evonorms_jax.evolution.records import WorkdirError

__all__ = ["WorkdirError", "write_report"]


def write_report(workdir: str | os.PathLike) -> epath.Path:
    """Writes `report/index.html` in the work directory of a search, also of a running or a copied one.

    Args:
      workdir: local or `gs://`.

    Returns:
      The absolute path of the page, which needs no other file.

    Raises:
      WorkdirError: if there is no such directory, it is not one of a search, or a file in it is damaged.
      ModuleNotFoundError: if matplotlib is not installed.
    """
    try:
        # Here, so that a search on a machine without matplotlib can import this package.
        from evonorms_jax.report import page
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        raise ModuleNotFoundError(
            "the report needs matplotlib: pip install evonorms-jax[demo]", name="matplotlib"
        ) from None
    return page.write(workdir)
