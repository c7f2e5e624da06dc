"""Drawing with matplotlib for the page and for files: our style, canvases, SVG output, placement of labels.

Coordinates are pixels of an SVG, 72 to the inch.
"""

import hashlib
import io
import re
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evonorms_jax.report import theme
from evonorms_jax.report.markup import Html, escape

#: A figure with more points than this embeds them as a bitmap. As vectors they would take megabytes.
MOST_VECTORS = 2000
_LEAST_SCALE = 0.75  # on a narrow screen a picture scrolls, so that its text stays legible
_PIXELS_PER_INCH = 72

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
    "svg.hashsalt": "evonorms_jax",  # makes the output deterministic
    "text.color": theme.light("ink"),
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": theme.light("muted"),
    "ytick.color": theme.light("muted"),
}

#: Decorator of all functions that draw. It overrides the user's own matplotlib style.
styled = style.context(["default", _STYLE])
#: Decorator of functions that draw formulas, as outlines of mathtext.
styled_math = style.context(
    ["default", _STYLE, {"text.parse_math": True, "svg.fonttype": "path", "mathtext.fontset": "cm"}]
)


# -- Canvases


def canvas(width: float, height: float, color: str = "none") -> Figure:
    """An empty figure, by default transparent."""
    return Figure(figsize=(width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), facecolor=color)


def box(figure: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Axes with the given margins to the edges of the figure."""
    width, height = figure.get_size_inches() * _PIXELS_PER_INCH
    area = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    axes = figure.add_axes(area, facecolor="none")
    axes.set_axisbelow(True)
    return axes


# -- Output


def as_file(figure: Figure, kind: str) -> bytes:
    """The figure as a file of kind "svg" or "png". Text becomes outlines and looks the same everywhere."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "evonorms_jax"}):
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()


def inline(figure: Figure, label: str, **options) -> Html:
    """The figure as an `<svg>` element of its natural size that shrinks with the page.

    Args:
      figure: a figure drawn within `styled`.
      label: description for screen readers.
      **options: options of `Figure.savefig`.
    """
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=no_metadata, **options)
    text = buffer.getvalue()
    _, _, width, height = re.search(r'viewBox="([^"]+)"', text)[1].split()
    body = re.search(r"<svg[^>]*>(.*)</svg>", text, re.S)[1]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.S)  # it would apply to the whole page
    # Matplotlib's ids are unique within a figure. The prefix makes them unique within the page.
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    body = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{prefix}-", body)
    size = f"width:{float(width):.0f}px;min-width:{_LEAST_SCALE * float(width):.0f}px"
    return Html(
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}" style="{size}">'
        f"{theme.themed(body)}</svg>"
    )


# -- Labels


class LineLabel(NamedTuple):
    """The name of a line at its right end.

    Attributes:
      height: value of the line at its right end, or NaN for a name without a line.
      text: name of the line.
      color: color of the name.
    """

    height: float
    text: str
    color: str


def label_right(
    axes: Axes, labels: Sequence[LineLabel], *, gap: float = 15, size: float = 11, leader: float = 20
) -> None:
    """Writes names of lines into the right margin, apart from each other and within the height of the axes.

    Names without a line come last, at the bottom.

    Args:
      axes: axes whose limits are set.
      labels: names of the lines.
      gap: least distance of two names.
      size: size of the letters.
      leader: distance of the names from the axes.
    """
    width, height = axes.get_window_extent().size * _PIXELS_PER_INCH / axes.figure.dpi
    low, high = axes.get_ylim()
    starts = {label: (label.height - low) / (high - low) for label in labels if np.isfinite(label.height)}
    ordered = sorted(labels, key=lambda label: starts.get(label, -1.0))
    wanted = [starts[label] * height if label in starts else gap for label in ordered]
    places = spread(wanted, [gap] * (len(ordered) - 1), least=0, most=height)
    for label, place in zip(ordered, places, strict=True):
        arrow = {"arrowstyle": "-", "color": label.color, "linewidth": 0.7, "shrinkA": 2, "shrinkB": 1}
        arrow["relpos"] = (0, 0.5)  # from the left edge of the name
        axes.annotate(
            label.text,
            (1, starts.get(label, place / height)),
            (1 + leader / width, place / height),
            xycoords="axes fraction",
            va="center",
            color=label.color,
            size=size,
            arrowprops=arrow if label in starts else None,
        )


def spread(
    wanted: Sequence[float], gaps: Sequence[float], *, least: float = -np.inf, most: float = np.inf
) -> np.ndarray:
    """Positions in the given order that keep the gaps and are closest to the wanted ones in squares.

    Without the gaps the positions must not decrease. This is isotonic regression, solved by pooling adjacent
    violators (Ayer et al. 1955). With bounds, its solution is the unbounded one clipped to the bounds.

    Args:
      wanted: `[N]` wanted positions, in any order. The result keeps the order of the arguments.
      gaps: `[N - 1]` least distances between neighbors.
      least: lower bound of the positions.
      most: upper bound. If the gaps leave no room, the lower bound takes precedence.

    Returns:
      `[N]` positions, each at least its gap above the one before.
    """
    offsets = np.concatenate([[0.0], np.cumsum(np.asarray(gaps, float))])[: len(wanted)]
    pools: list[tuple[float, int]] = []  # mean and number of the wanted positions in a pool
    for target in np.asarray(wanted, float) - offsets:
        mean, size = float(target), 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    positions = np.repeat([mean for mean, _ in pools], [size for _, size in pools])
    return np.maximum(np.minimum(positions, most - offsets[-1:]), least) + offsets
