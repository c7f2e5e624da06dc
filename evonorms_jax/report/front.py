"""The Pareto front over the anchors, as one panel for each pair of them."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evonorms_jax.report.markup import Html
from evonorms_jax.report.palette import light
from evonorms_jax.report.picture import MOST_VECTORS, box, canvas, inline, styled
from evonorms_jax.report.ranking import accepted, front_of, score_matrix, trained_baselines
from evonorms_jax.report.records import Search

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
    found = accepted(search.history)
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
