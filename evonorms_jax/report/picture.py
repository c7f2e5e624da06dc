"""One-dimensional placement: things near where they want to be, and a gap apart."""

import hashlib
import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evonorms_jax.report import theme
from evonorms_jax.report.markup import Html, escape


def spread(wanted: Sequence[float], gaps: Sequence[float]) -> np.ndarray:
    """Positions in the given order, the nearest to `wanted` in squares, that keep the gaps.

    With the gaps taken off, the positions must not decrease: isotonic regression, by pooling neighbours that
    are out of order (Ayer et al. 1955).

    Args:
      wanted: `[N]` wanted positions, in any order; the result keeps the order of the arguments.
      gaps: `[N - 1]` least distances between neighbours.

    Returns:
      `[N]` positions, each at least its gap above the one before.
    """
    offsets = np.concatenate([[0.0], np.cumsum(np.asarray(gaps, float))])[: len(wanted)]
    pools: list[tuple[float, int]] = []  # mean of the wanted positions, and how many they are
    for target in np.asarray(wanted, float) - offsets:
        mean, size = float(target), 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    return np.repeat([mean for mean, _ in pools], [size for _, size in pools]) + offsets


#: More points than this in a figure should become a bitmap inside the SVG: it would be megabytes.
MOST_VECTORS = 2000
_LEAST_SCALE = 0.75  # on a narrow screen a picture scrolls, its letters stay legible
_PIXELS_PER_INCH = 72  # SVG units of matplotlib

_STYLE = {
    "axes.edgecolor": theme.light("muted"),
    "axes.labelcolor": theme.light("muted"),
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12.0,
    "savefig.dpi": 160,  # of bitmaps
    "svg.fonttype": "none",
    "svg.hashsalt": "evonorms_jax",  # the same figure gives the same text
    "text.color": theme.light("ink"),
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": theme.light("muted"),
    "ytick.color": theme.light("muted"),
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
        f"{theme.themed(body)}</svg>"
    )
