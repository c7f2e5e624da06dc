"""The figures of the studies: a comparison of methods, and a panel for each network of a table."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from evonorms_jax.evolution.records import layer_title
from evonorms_jax.report.picture import LineLabel, box, canvas, label_right, styled
from evonorms_jax.report.theme import light
from evonorms_jax.study.cells import column_title
from evonorms_jax.study.methods import METHODS
from evonorms_jax.study.table import Json, Metric
from evonorms_jax.study.transfer import column, metrics_of

_LABELS = {"size": 12, "gap": 17, "leader": 22}
#: Color, width and dashes of the paper's methods. Later ones lie on top, and a narrow one leaves a wide one
#: visible where they coincide.
_LOOKS = {
    "evolution": ("accent", 3.4, "solid"),
    "random_search": ("unstable", 2.0, "solid"),
    "random_rejection": ("ink", 1.5, (0, (5, 2))),
    "warm_random": ("low_quality", 1.8, (0, (4, 2))),
    "warm_uniform": ("batch_dependent", 1.8, (0, (4, 2))),
    "warm_tournament": ("accepted", 1.8, (0, (4, 2))),
}
_POINTS = 2000  # of a curve, at most
_MOST_ACROSS = 4  # panels of a table in a row, so that the picture fits a page
_COLORS = ("accent", "unstable", "accepted", "batch_dependent", "diverged", "ink", "dead", "low_quality")


def _margin(texts: Sequence[str]) -> float:
    """Points on the right that labels of these texts need."""
    return _LABELS["leader"] + 14 + 0.58 * _LABELS["size"] * max(map(len, texts))


def _scale(axes: Axes, metric: Metric, across: bool = False) -> None:
    """Numbers along the axis of a metric: the horizontal one if `across`."""
    axis = axes.xaxis if across else axes.yaxis
    axis.set_major_locator(MaxNLocator(4 if across else 6))
    if metric.percent:
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axis.set_label_text(metric.title)


# -- Methods: best validation accuracy so far against cost


@styled
def draw_comparison(results: Json) -> Figure:
    """A thin line for each search, a thick one for the mean of a method, and a line for two baselines."""
    config = results["config"]
    steps = config["device_steps"]
    budget = config["budget"] if steps is None else steps
    methods = {row["name"]: row for row in results["methods"]}
    looks = {name: look for name, look in _LOOKS.items() if name in methods}
    others = (name for name in methods if name not in looks and METHODS[name].rejection)
    looks |= {
        name: (color, 1.5, "solid") for name, color in zip(others, itertools.cycle(_COLORS[2:]), strict=False)
    }
    names = {name: _method_label(methods[name]) for name in looks}
    figure = canvas(896, 430, light("card"))
    axes = box(figure, 66, 18, _margin(list(names.values())), 52)
    labels = []
    for name, (color, width, dashes) in looks.items():
        look = {"color": light(color), "linestyle": dashes, "drawstyle": "steps-post"}
        height = _draw_method(axes, methods[name], budget, width, look)
        labels.append(LineLabel(height, names[name], light(color)))
    for name, summary in results["references"].items():
        if summary is not None:
            axes.axhline(summary["mean"], color=light("muted"), linewidth=1.2, linestyle=(0, (1, 2)))
            labels.append(LineLabel(summary["mean"], layer_title(name), light("muted")))
    axes.set_xlim(0, budget)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.grid(color=light("line"))
    axes.set_xlabel("candidates examined" if steps is None else "steps of training and stability test")
    axes.set_ylabel("best mean validation accuracy so far")
    label_right(axes, labels, **_LABELS)
    return figure


def _method_label(row: Json) -> str:
    runs = row["runs"]
    number = sum(run["chosen"] is not None for run in runs)
    if not number:
        return f"{row['title']}: none accepted"
    return row["title"] + ("" if number == len(runs) else f" ({number} of {len(runs)} seeds)")


def _draw_method(axes: Axes, row: Json, budget: int, width: float, look: dict[str, Any]) -> float:
    """Draws the curves of a method up to the budget, and returns the last value of their mean."""
    places = np.linspace(0, budget, min(budget, _POINTS) + 1)[1:]
    curves = [curve(run["best_so_far"], places) for run in row["runs"]]
    for best in curves:
        axes.plot(places, best, linewidth=0.9, alpha=0.45, **look)
    mean = mean_curve(curves)
    axes.plot(places, mean, linewidth=width, zorder=3, **look)
    return float(mean[-1])


def curve(rises: Sequence[tuple[int, float]], places: np.ndarray) -> np.ndarray:
    """Best accuracy at ascending costs, `[N]`, NaN before the first of its rises."""
    best = np.full(len(places), np.nan)
    for cost, accuracy in rises:
        best[np.searchsorted(places, cost) :] = accuracy
    return best


def mean_curve(curves: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the curves that have values at all, where all of them have one, and NaN before."""
    found = [best for best in curves if np.isfinite(best[-1])]
    return np.mean(found, axis=0) if found else np.full_like(curves[0], np.nan)


# -- Tables: a panel for each network and metric


@styled
def draw_table(results: Json) -> Figure:
    """The metric against the images that share batch statistics, or, without a choice of them, per layer."""
    metrics = metrics_of(results["config"])
    panels = list(itertools.product(results["networks"], metrics))
    titles = [column_title(network, metric, metrics) for network, metric in panels]
    draw = _draw_curves if results["config"]["batches"] else _draw_dots
    figure, boxes = draw(results, panels, titles)
    for axes, title in zip(boxes, titles, strict=True):
        axes.set_title(title, fontsize=11, color=light("ink"), loc="left")
    return figure


def _draw_curves(results: Json, panels: Sequence[tuple[str, Metric]], titles: Sequence[str]):
    rows, batches = list(results["rows"]), results["config"]["batches"]
    figure, boxes = _panels(len(panels), height=330, left=66, width=310, right=_margin(rows))
    metrics = metrics_of(results["config"])
    for axes, (network, metric) in zip(boxes, panels, strict=True):
        names = [column_title(column(network, batch), metric, metrics) for batch in batches]
        labels = []
        for place, (row, entries) in enumerate(results["rows"].items()):
            # Side by side, so that bars of equal layers do not hide each other.
            shift = 0.05 * (place - (len(rows) - 1) / 2)
            color = light(_COLORS[place % len(_COLORS)])
            end = _draw_curve(axes, metric, [entries[name] for name in names], shift, color)
            labels.append(LineLabel(end, row, color))
        axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
        axes.set_xlabel("images that share batch statistics")
        axes.margins(x=0.02)
        _scale(axes, metric)
        axes.set_ylabel(metric.title if _begins_row(axes, boxes) else "")
    _share_range(boxes, [metric for _, metric in panels])
    label_right(boxes[-1], labels, **_LABELS)
    return figure, boxes


def _draw_curve(axes: Axes, metric: Metric, entries: Sequence[Json], shift: float, color: str) -> float:
    """Draws a layer and returns its last value or NaN. Values that agree everywhere get one bar."""
    done = [place for place, entry in enumerate(entries) if entry["summary"] is not None]
    summaries = [entries[place]["summary"] for place in done]
    centers = np.array([metric.center(summary) for summary in summaries])
    bars = np.array([summary["deviation"] or 0.0 for summary in summaries])
    places = np.array(done) + shift
    axes.plot(places, centers, color=color, linewidth=1.6)
    if len(done) > 1 and all(entries[place]["by_seed"] == entries[done[0]]["by_seed"] for place in done):
        places, centers, bars = places[-1:], centers[-1:], bars[-1:]
    if metric.statistic == "mean":
        axes.errorbar(places, centers, bars, fmt="o", color=color, capsize=2, elinewidth=1, markersize=4)
    return float(centers[-1]) if len(centers) else np.nan


def _share_range(boxes: Sequence[Axes], metrics: Sequence[Metric]) -> None:
    """Gives panels of one metric the same range, so that networks can be compared."""
    for metric in set(metrics):
        mine = [axes for axes, other in zip(boxes, metrics, strict=True) if other == metric]
        lows, highs = zip(*(axes.get_ylim() for axes in mine), strict=True)
        for axes in mine:
            axes.set_ylim(min(lows), max(highs))


def _draw_dots(results: Json, panels: Sequence[tuple[str, Metric]], titles: Sequence[str]):
    rows = list(results["rows"])
    figure, boxes = _panels(len(panels), height=24 * len(rows) + 90, left=_margin(rows), width=180, right=30)
    places = np.arange(len(rows))[::-1]
    for axes, (_, metric), title in zip(boxes, panels, titles, strict=True):
        for place, entries in zip(places, results["rows"].values(), strict=True):
            entry = entries[title]
            scores = [score for score in entry["by_seed"].values() if score is not None]
            axes.plot(scores, [place] * len(scores), "o", color=light("accent"), alpha=0.35, markersize=4)
            if entry["summary"] is not None:
                center = metric.center(entry["summary"])
                axes.plot(center, place, "|", color=light("ink"), markersize=13, mew=2)
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.set_yticks(places, rows if _begins_row(axes, boxes) else [""] * len(rows))
        _scale(axes, metric, across=True)
    return figure, boxes


def _panels(count: int, *, height: int, left: float, width: int, right: float) -> tuple[Figure, list[Axes]]:
    """Axes in rows of at most `_MOST_ACROSS`. Sizes are in points, and the height is that of a row."""
    gap = 50
    lines = math.ceil(count / _MOST_ACROSS)
    across = math.ceil(count / lines)
    total = left + across * width + (across - 1) * gap + right
    figure = canvas(total, lines * height, light("card"))
    boxes = []
    for place in range(count):
        line, number = divmod(place, across)
        start, below = left + number * (width + gap), (lines - 1 - line) * height
        boxes.append(box(figure, start, line * height + 38, total - start - width, below + 52))
        boxes[-1].grid(color=light("line"))
    return figure, boxes


def _begins_row(axes: Axes, boxes: Sequence[Axes]) -> bool:
    return axes.get_position().x0 == boxes[0].get_position().x0
