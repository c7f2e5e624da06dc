"""The figure of a comparison: best validation accuracy so far against candidates examined."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evonorms_jax.evolution.records import layer_title
from evonorms_jax.report.picture import as_file, box, canvas, spread, styled
from evonorms_jax.report.theme import light

_WIDTH, _HEIGHT = 896, 430
_GAP = 17  # between two labels

#: Methods that have a curve, with colour, width and dashes; later ones lie on top. Where two coincide, the
#: narrower one leaves the other visible.
_LOOKS = {
    "evolution": ("accent", 3.4, "solid"),
    "random_search": ("unstable", 2.0, "solid"),
    "random_rejection": ("ink", 1.5, (0, (5, 2))),
}


class _Label(NamedTuple):
    height: float  # accuracy at the right end of its line; NaN without a line
    text: str
    color: str


def curve(rises: Sequence[tuple[int, float]], length: int) -> np.ndarray:
    """Best accuracy after 1 to `length` candidates, `[length]`, of the places where it rose; NaN before."""
    best = np.full(length, np.nan)
    for examined, accuracy in rises:
        best[examined - 1 :] = accuracy
    return best


def mean_curve(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the curves that ever have a value, from where the last of them has one; NaN before."""
    found = [best for best in curves if np.isfinite(best[-1])]
    return np.mean(found, axis=0) if found else np.full_like(curves[0], np.nan)


@styled
def draw(results: dict[str, Any]) -> Figure:
    """Draws a thin line for each search and a thick one for the mean of a method, beside two known layers."""
    figure = canvas(_WIDTH, _HEIGHT)
    figure.set_facecolor(light("card"))
    axes = box(figure, 66, 18, 302, 52)
    budget = results["config"]["budget"]
    methods = {row["name"]: row for row in results["methods"]}
    labels = []
    for name, (color, width, dashes) in _LOOKS.items():
        look = {"color": light(color), "linestyle": dashes, "drawstyle": "steps-post"}
        labels.append(_draw_method(axes, methods[name], budget, width, look))
    for name, summary in results["references"].items():
        if summary is not None:
            axes.axhline(summary["mean"], color=light("muted"), linewidth=1.2, linestyle=(0, (1, 2)))
            labels.append(_Label(summary["mean"], layer_title(name), light("muted")))
    axes.set_xlim(0, budget)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.grid(color=light("line"))
    axes.set_xlabel("candidates examined")
    axes.set_ylabel("best mean validation accuracy so far")
    _label_right(axes, labels)
    return figure


def _draw_method(axes: Axes, row: dict[str, Any], budget: int, width: float, look: dict[str, Any]) -> _Label:
    """The curves of a method, each as long as the budget, and their label."""
    curves = [curve(run["best_so_far"], budget) for run in row["runs"]]
    places = np.arange(1, budget + 1)
    for best in curves:
        axes.plot(places, best, linewidth=0.9, alpha=0.45, **look)
    mean = mean_curve(curves)
    axes.plot(places, mean, linewidth=width, zorder=3, **look)
    number = sum(run["chosen"] is not None for run in row["runs"])
    note = "" if number == len(curves) else f" ({number} of {len(curves)} seeds)"
    text = f"{row['title']}{note}" if number else f"{row['title']}: none accepted"
    return _Label(float(mean[-1]), text, look["color"])


def _label_right(axes: Axes, labels: Sequence[_Label]) -> None:
    """Names of the lines in the right margin, pushed apart where lines lie close; without a line, below."""
    height = axes.get_window_extent().height * 72 / axes.figure.dpi
    low, high = axes.get_ylim()
    starts = {label: (label.height - low) / (high - low) for label in labels if np.isfinite(label.height)}
    ordered = sorted(labels, key=lambda label: starts.get(label, -1.0))
    wanted = [starts[label] * height if label in starts else _GAP for label in ordered]
    for label, place in zip(ordered, spread(wanted, [_GAP] * (len(ordered) - 1)), strict=True):
        arrow = {"arrowstyle": "-", "color": label.color, "linewidth": 0.8, "shrinkA": 2, "shrinkB": 1}
        axes.annotate(
            label.text,
            (1, starts.get(label, place / height)),
            (1.03, place / height),
            xycoords="axes fraction",
            va="center",
            color=label.color,
            size=12,
            arrowprops=arrow if label in starts else None,
        )


def render(results: dict[str, Any], kind: str) -> bytes:
    """The figure as a file of kind "svg" or "png"."""
    return as_file(draw(results), kind)
