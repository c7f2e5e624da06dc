"""The page of the report: one self-contained HTML file, `report/index.html` in the work directory."""

import datetime

from etils import epath

from evonorms_jax import __version__
from evonorms_jax.evolution import records
from evonorms_jax.report import cost, sections
from evonorms_jax.report.markup import Html, element, escape, join
from evonorms_jax.report.theme import css
from evonorms_jax.runs.files import absolute, write_whole
from evonorms_jax.runs.provenance import now


def write(workdir: epath.PathLike, search: records.Search | None = None) -> epath.Path:
    """Reads the work directory unless its content is given, writes the page, and returns its path.

    Raises:
      WorkdirError: if the directory is not the work directory of a search, or a file in it is damaged.
    """
    workdir = absolute(workdir)
    search = search or records.read_search(workdir)
    path = workdir / "report" / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    page = render(search, now())
    # ASCII, because files are written in the encoding of the locale.
    write_whole(path, page.encode("ascii", "xmlcharrefreplace").decode())
    return path


def render(search: records.Search, written: datetime.datetime) -> str:
    """The page as HTML, a pure function of the search and the time of writing."""
    top = records.best_layers(search)
    parts = [
        sections.header(search),
        sections.tiles(search, top),
        sections.best_layer(search, top),
        sections.progress(search),
        sections.outcomes(search),
        sections.pareto(search, top),
        sections.comparison(search, top),
        cost.trade_off(search, top),
        sections.top_layers(search, top),
        sections.settings(search.config),
        element("footer", _colophon(search.version, written)),
    ]
    title = f"{search.config['name']} · normalization-activation layers"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css()}\n</style>\n</head>\n"
        f"<body>\n{element('main', join(parts))}\n</body>\n</html>\n"
    )


def _colophon(version: str, written: datetime.datetime) -> Html:
    return escape(
        f"Search: evonorms-jax {version}. Report: evonorms-jax {__version__}, {written:%Y-%m-%d %H:%M} UTC. "
        "Method: Evolving Normalization-Activation Layers, arXiv 2004.02967."
    )
