"""The course of a search as figures: accuracy and outcomes by candidate, and the funnel of the tests."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evonorms_jax.evolution.history import OUTCOMES, History
from evonorms_jax.evolution.records import (
    Search,
    front_of,
    mean_score,
    score_matrix,
    trained_baselines,
)
from evonorms_jax.report.markup import Html
from evonorms_jax.report.picture import MOST_VECTORS, box, canvas, inline, spread, styled, styled_math
from evonorms_jax.report.theme import light
from evonorms_jax.search_space import Graph

#: How a candidate came to be, by marker.
ORIGINS = {"random": "o", "mutation": "^", "seed": "s"}
_MOST_BINS = 40
_BIN_WIDTHS = [step * 10**power for power in range(7) for step in (1, 2, 5)]


@styled
def progress(search: Search) -> Html:
    """Mean accuracy of the candidates by index with the best so far, above the outcomes by index.

    Needs a candidate.
    """
    figure = canvas(1040, 470)
    above = box(figure, 62, 14, 130, 166)
    below = box(figure, 62, 334, 130, 46)
    end = len(search.history)
    _draw_accuracies(above, search)
    _draw_outcomes(below, search.history)
    for axes in (above, below):
        axes.set_xlim(0, end)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    above.tick_params(labelbottom=False)
    below.set_xlabel("candidate")
    return inline(figure, "validation accuracy and outcomes of the candidates in the order of examination")


def _draw_accuracies(axes: Axes, search: Search) -> None:
    found = search.history.accepted()
    means = np.array([record.mean_score for record in found])
    rejected = [record for record in search.history if record.evaluation.outcome == "low_quality"]
    early = [record.evaluation.evidence["accuracy"] for record in rejected]
    as_bitmap = len(found) + len(rejected) > MOST_VECTORS
    axes.scatter(
        [record.index for record in rejected],
        early,
        s=14,
        color=light("low_quality"),
        linewidth=0,
        rasterized=as_bitmap,
    )
    for origin, marker in ORIGINS.items():
        chosen = [place for place, record in enumerate(found) if record.proposal.origin == origin]
        axes.scatter(
            [found[place].index for place in chosen],
            means[chosen],
            s=44,
            marker=marker,
            color=light("accepted"),
            edgecolor=light("card"),
            linewidth=0.7,
            zorder=3,
            rasterized=as_bitmap,
        )
    lines = {layer.title: mean_score(layer.scores) for layer in trained_baselines(search)}
    shown = [*means, *early, *lines.values()] or [0, 1]
    margin = max(0.06 * (max(shown) - min(shown)), 0.01)
    axes.set_ylim(max(min(shown) - margin, 0), min(max(shown) + margin, 1))
    axes.yaxis.grid(color=light("line"))
    axes.set_ylabel("validation accuracy")
    for mean in lines.values():
        axes.axhline(mean, color=light("muted"), linewidth=1, linestyle=(0, (2, 3)))
    if found:
        best = np.maximum.accumulate(means)
        axes.step(
            [*(record.index for record in found), len(search.history)],
            [*best, best[-1]],
            where="post",
            color=light("accent"),
            linewidth=2,
        )
        lines["best so far"] = best[-1]
    else:
        axes.text(0.5, 0.5, "no candidate accepted yet", ha="center", transform=axes.transAxes)
    _label_right(axes, lines)


def _label_right(axes: Axes, lines: Mapping[str, float]) -> None:
    """Names of horizontal lines in the right margin, pushed apart where the lines lie close."""
    titles = sorted(lines, key=lines.__getitem__)
    height = axes.get_window_extent().height * 72 / axes.figure.dpi
    low, high = axes.get_ylim()
    wanted = [(lines[title] - low) / (high - low) * height for title in titles]
    for title, start, place in zip(titles, wanted, spread(wanted, [15] * (len(titles) - 1)), strict=True):
        color = light("accent" if title == "best so far" else "muted")
        axes.annotate(
            title,
            (1, start / height),
            (1.022, place / height),
            xycoords="axes fraction",
            va="center",
            color=color,
            size=11,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkA": 2, "shrinkB": 1},
        )


def _draw_outcomes(axes: Axes, history: History) -> None:
    """Share of each outcome among neighbouring candidates."""
    end = len(history)
    width = next((width for width in _BIN_WIDTHS if end <= width * _MOST_BINS), end)
    counts = np.zeros((len(OUTCOMES), -(-end // width)))
    for record in history:
        counts[list(OUTCOMES).index(record.evaluation.outcome), record.index // width] += 1
    shares = counts / np.maximum(counts.sum(0), 1)
    starts = np.arange(shares.shape[1]) * width
    widths = np.minimum(width, end - starts)
    bottom = np.zeros(shares.shape[1])
    # Accepted at the bottom: how its share develops is what one wants to see.
    for name, share in reversed(list(zip(OUTCOMES, shares, strict=True))):
        axes.bar(starts, share, widths, bottom, align="edge", color=light(name), linewidth=0)
        bottom += share
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("outcomes")


@styled
def funnel(history: History) -> Html:
    """What is left of the candidates after each test, in the order of the tests; needs a candidate."""
    counts = Counter(record.evaluation.outcome for record in history)
    lost = {name: counts[name] for name in OUTCOMES if name != "accepted" and counts[name]}
    rows = [("examined", "muted", 0, len(history), str(len(history)))]
    left = len(history)
    for name, count in lost.items():
        left -= count
        note = f"\N{MINUS SIGN}{count}, {left} left"
        rows.append((OUTCOMES[name].title, name, left, count, note))
    rows.append((OUTCOMES["accepted"].title, "accepted", 0, left, str(left)))

    figure = canvas(600, 34 * len(rows) + 16)
    axes = box(figure, 116, 8, 124, 8)
    for place, (_, color, start, count, note) in enumerate(rows):
        axes.barh(place, count, left=start, height=0.62, color=light(color))
        axes.text(1.03, place, note, va="center_baseline", transform=axes.get_yaxis_transform())
        if place + 1 < len(rows):
            edge = start if place else count  # where the next bar ends: what is left after this test
            axes.plot([edge, edge], [place, place + 1], color=light("muted"), linewidth=0.8)
    axes.set(xlim=(0, len(history)), ylim=(len(rows) - 0.5, -0.5), xticks=[])
    axes.set_yticks(range(len(rows)), [title for title, *_ in rows], color=light("ink"))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return inline(figure, "how many candidates each test rejected")


#: Markers of the baselines in their order, and the sign that stands for each in text.
BASELINE_MARKERS = {"D": "◆", "s": "■", "^": "▲", "v": "▼", "<": "◀", ">": "▶", "p": "⬟"}

_WIDTH, _HEIGHT = 336, 330
_LEFT, _TOP, _RIGHT, _BOTTOM = 76, 12, 24, 48  # margins
_LETTER, _LINE = 6.5, 12  # width and height that a label needs
_AROUND = [(11, 0), (0, 12), (0, -12), (-11, 0), (9, 9), (9, -9), (-9, 9), (-9, -9), (20, 14), (20, -14)]


@styled
def pareto(search: Search, labels: Mapping[int, str]) -> list[Html]:
    """A panel a pair of anchors: accepted candidates, the Pareto front over all anchors, the baselines.

    Poor candidates may lie outside a panel: it shows the front, the baselines and the better half.

    Args:
      search: with an accepted candidate.
      labels: what to write beside members of the front, by candidate index.
    """
    found = search.history.accepted()
    scores = score_matrix([record.evaluation.scores for record in found], search.anchors)
    front = front_of(found, search.anchors)
    names = [labels.get(found[place].index, "") for place in front]
    baselines = score_matrix([layer.scores for layer in trained_baselines(search)], search.anchors)
    panels = []
    for first, second in combinations(range(len(search.anchors)), 2):
        pair = [first, second]
        figure = canvas(_WIDTH, _HEIGHT)
        axes = box(figure, _LEFT, _TOP, _RIGHT, _BOTTOM)
        _set_limits(axes, scores[:, pair], np.concatenate([scores[front], baselines])[:, pair])
        rest = np.delete(scores[:, pair], front, 0)
        axes.scatter(*rest.T, s=20, color=light("inert"), linewidth=0, rasterized=len(rest) > MOST_VECTORS)
        axes.scatter(*scores[front][:, pair].T, s=50, color=light("accepted"), linewidth=0)
        for (marker, _), point in zip(BASELINE_MARKERS.items(), baselines[:, pair], strict=False):
            axes.scatter(*point, s=50, marker=marker, color=light("ink"), linewidth=0)
        axes.set_xlabel(search.anchors[first])
        axes.set_ylabel(search.anchors[second])
        _label(axes, scores[front][:, pair], names, baselines[:, pair])
        panels.append(inline(figure, f"accuracies on {search.anchors[first]} and {search.anchors[second]}"))
    return panels


def _set_limits(axes: Axes, scores: np.ndarray, prominent: np.ndarray) -> None:
    """Both `[N, 2]`: room for all that is prominent and the better half of the scores."""
    low = np.minimum(prominent.min(0), np.median(scores, axis=0))
    high = prominent.max(0)
    margin = np.maximum(0.09 * (high - low), 0.004)
    axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axes.grid(color=light("line"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def _label(axes: Axes, points: np.ndarray, names: Sequence[str], obstacles: np.ndarray) -> None:
    """Writes each name beside its point, `[N, 2]`, where it covers the fewest markers and no other name."""
    size = np.array([_WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM])

    def pixels(values):
        low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
        return (values - low) / (high - low) * size

    markers = np.concatenate([pixels(points), pixels(obstacles)])
    placed: list[tuple[np.ndarray, np.ndarray]] = []  # middle and half the size of each name

    def harm(middle: np.ndarray, half: np.ndarray) -> int:
        clashes = sum(np.all(np.abs(middle - other) < half + other_half) for other, other_half in placed)
        covered = np.sum(np.all(np.abs(markers - middle) < half + 5, axis=1))
        outside = np.any(np.abs(middle - size / 2) > size / 2 - half)
        return 10 * clashes + 5 * outside + covered

    for point, name in zip(pixels(points), names, strict=True):
        half = np.array([_LETTER * len(name), _LINE]) / 2
        places = [point + np.array([x + np.sign(x) * (half[0] - 3), y]) for x, y in _AROUND]
        middle = places[int(np.argmin([harm(place, half) for place in places]))]
        placed.append((middle, half))
        axes.text(*(middle / size), name, ha="center", va="center", size=11, transform=axes.transAxes)


# Repeated sub-expressions are written out in LaTeX, so that it can be far longer than the text; beyond this
# nobody reads it.
_LONGEST = 400
_PARSER = MathTextParser("path")
# Delimiters around something flat; mathtext sets stretched ones too small there.
_FLAT = re.compile(r"\\left([(|])((?:(?!\\left|\\right|\\frac).)*)\\right([)|])")


@styled_math
def typeset(graph: Graph, size: float = 18) -> Html | None:
    """The equation `y = ...` as a picture; None if it is too long or mathtext cannot read it."""
    latex = graph.latex()
    if len(latex) > _LONGEST:
        return None
    while _FLAT.search(latex):
        latex = _FLAT.sub(r"\1\2\3", latex)
    formula = f"$y = {latex}$".replace(r"\frac", r"\dfrac", 1)  # the outermost one, in full size
    try:
        _PARSER.parse(formula)
    except ValueError:
        return None
    figure = canvas(10, 10)
    figure.text(0, 0, formula, size=size)
    return inline(figure, f"y = {graph}", bbox_inches="tight", pad_inches=0.03)
