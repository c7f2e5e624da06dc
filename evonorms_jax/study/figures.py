"""The figure of a table of classification results: a panel for each network."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evonorms_jax.report.picture import as_file, canvas, styled
from evonorms_jax.report.theme import light

_COLORS = ("accent", "unstable", "accepted", "batch_dependent", "low_quality", "diverged", "dead", "ink")
_PANEL, _ROW = 250, 24


@styled
def draw(results: dict[str, Any]) -> Figure:
    """Accuracy against the size of the groups with batch statistics, or, without sizes, layer by layer."""
    batches = results["config"]["batches"]
    panels = list(results["networks"])
    return _draw_curves(results, panels, batches) if batches else _draw_dots(results, panels)


def _draw_curves(results: dict[str, Any], panels: Sequence[str], batches: Sequence[int]) -> Figure:
    figure, boxes = _panels(len(panels), height=330, left=66, width=_PANEL + 60, right=150)
    places = np.arange(len(batches))
    for axes, network in zip(boxes, panels, strict=True):
        for place, (row, cells) in enumerate(results["rows"].items()):
            summaries = [cells[f"{network}, {batch}"]["summary"] for batch in batches]
            # Side by side, so that bars of equal layers do not hide each other.
            shift = 0.04 * (place - (len(results["rows"]) - 1) / 2)
            _curve(axes, places + shift, summaries, light(_COLORS[place % len(_COLORS)]), row)
        axes.set_xticks(places, [str(batch) for batch in batches])
        axes.set_xlabel("images that share batch statistics")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    boxes[0].set_ylabel("test accuracy")
    boxes[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=11)
    _title(boxes, panels)
    return figure


def _draw_dots(results: dict[str, Any], panels: Sequence[str]) -> Figure:
    rows = list(results["rows"])
    figure, boxes = _panels(len(panels), height=_ROW * len(rows) + 90, left=190, width=_PANEL - 70, right=30)
    places = np.arange(len(rows))[::-1]
    for axes, network in zip(boxes, panels, strict=True):
        for place, row in zip(places, rows, strict=True):
            cell = results["rows"][row][network]
            scores = [score for score in cell["by_seed"].values() if score is not None]
            axes.plot(scores, [place] * len(scores), "o", color=light("accent"), alpha=0.35, markersize=4)
            if cell["summary"] is not None:
                axes.plot(cell["summary"]["mean"], place, "|", color=light("ink"), markersize=13, mew=2)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_yticks(places, rows if axes is boxes[0] else [""] * len(rows))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("test accuracy")
        axes.grid(color=light("line"))
    _title(boxes, panels)
    return figure


def _panels(count: int, *, height: int, left: int, width: int, right: int) -> tuple[Figure, list[Axes]]:
    """Axes side by side, sizes in pixels."""
    gap = 50
    total = left + count * width + (count - 1) * gap + right
    figure = canvas(total, height)
    figure.set_facecolor(light("card"))
    boxes = [
        figure.add_axes(
            (
                (left + place * (width + gap)) / total,
                52 / height,
                width / total,
                (height - 90) / height,
            ),
            facecolor="none",
        )
        for place in range(count)
    ]
    for axes in boxes:
        axes.set_axisbelow(True)
        axes.grid(color=light("line"))
    return figure, boxes


def _curve(axes: Axes, places, summaries, color: str, label: str) -> None:
    done = [i for i, summary in enumerate(summaries) if summary is not None]
    means = [summaries[i]["mean"] for i in done]
    deviations = [summaries[i]["deviation"] or 0.0 for i in done]
    look = {"color": color, "label": label, "capsize": 2, "elinewidth": 1, "markersize": 4}
    axes.errorbar(places[done], means, deviations, fmt="o-", **look)


def _title(boxes: Sequence[Axes], names: Sequence[str]) -> None:
    for axes, name in zip(boxes, names, strict=True):
        axes.set_title(name, fontsize=12, color=light("ink"), loc="left")


def render(results: dict[str, Any], kind: str) -> bytes:
    """The figure as a file of kind "svg" or "png"."""
    return as_file(draw(results), kind)
