"""A matplotlib figure as SVG for the inside of a page: no file, no display, no global state.

Sizes are in CSS pixels. Text of a figure stays text, in the font of the page; formulas become outlines.
"""

import hashlib
import io
import re

import matplotlib
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evonorms_jax.report import palette
from evonorms_jax.report.markup import Html, escape

#: More points than this in a figure should become a bitmap inside the SVG: it would be megabytes.
MOST_VECTORS = 2000
_LEAST_SCALE = 0.75  # on a narrow screen a picture scrolls, its letters stay legible
_PIXELS_PER_INCH = 72  # SVG units of matplotlib

_STYLE = {
    "axes.edgecolor": palette.light("muted"),
    "axes.labelcolor": palette.light("muted"),
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12.0,
    "savefig.dpi": 160,  # of bitmaps
    "svg.fonttype": "none",
    "svg.hashsalt": "evonorms_jax",  # the same figure gives the same text
    "text.color": palette.light("ink"),
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": palette.light("muted"),
    "ytick.color": palette.light("muted"),
}

#: Decorator of all that draws: our settings, whatever the user's own matplotlib style is.
styled = style.context(["default", _STYLE])
#: The same for formulas: mathtext, as outlines.
styled_math = style.context(
    ["default", _STYLE, {"text.parse_math": True, "svg.fonttype": "path", "mathtext.fontset": "cm"}]
)


def canvas(width: float, height: float) -> Figure:
    """An empty transparent figure."""
    return Figure(figsize=(width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), facecolor="none")


def box(figure: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Axes with the given margins to the edges of the figure."""
    width, height = figure.get_size_inches() * _PIXELS_PER_INCH
    area = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    axes = figure.add_axes(area, facecolor="none")
    axes.set_axisbelow(True)
    return axes


def as_file(figure: Figure, kind: str) -> bytes:
    """The figure as a file of kind "svg" or "png"; letters are outlines, so it looks the same everywhere."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "evonorms_jax"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()


def inline(figure: Figure, label: str, **options) -> Html:
    """The figure as an `<svg>` element of its natural size that shrinks with the page.

    Args:
      figure: drawn within `styled`.
      label: what a screen reader says.
      **options: of `Figure.savefig`.
    """
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=no_metadata, **options)
    text = buffer.getvalue()
    _, _, width, height = re.search(r'viewBox="([^"]+)"', text)[1].split()
    body = re.search(r"<svg[^>]*>(.*)</svg>", text, re.S)[1]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.S)  # would hold for the whole page
    # Names are of this figure only; in the page, they must differ from those of the other figures.
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    body = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{prefix}-", body)
    size = f"width:{float(width):.0f}px;min-width:{_LEAST_SCALE * float(width):.0f}px"
    return Html(
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}" style="{size}">'
        f"{palette.themed(body)}</svg>"
    )
