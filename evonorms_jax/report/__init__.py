"""The report of a search: one HTML page with figures, tables, and drawings of the best layers.

`page` assembles the `sections`. Pictures come from `figures` and `graph_picture`, which share `picture`. HTML
comes from `markup`, colors and style from `theme`. The package only renders: `evolution.records` reads a work
directory and ranks its layers.
"""

import os

from etils import epath

from evonorms_jax.evolution.records import Search, WorkdirError, read_search
from evonorms_jax.packages import require_matplotlib

__all__ = ["WorkdirError", "read_search", "write_report"]


def write_report(workdir: str | os.PathLike, search: Search | None = None) -> epath.Path:
    """Writes `report/index.html` in the work directory of a search, which may still be running or be a copy.

    Args:
      workdir: work directory, local or `gs://`.
      search: content of the work directory, if it was read already.

    Returns:
      The absolute path of the page, which is self-contained.

    Raises:
      WorkdirError: if the directory is not the work directory of a search, or a file in it is damaged.
      ModuleNotFoundError: if matplotlib is not installed.
    """
    require_matplotlib("the report")
    from evonorms_jax.report import page

    return page.write(workdir, search)
