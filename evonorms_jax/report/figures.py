"""Figures of a search: accuracies and outcomes by candidate, the funnel of the tests, the Pareto front."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from evonorms_jax.evolution.history import OUTCOMES, History
from evonorms_jax.evolution.records import Search, front_of, score_matrix, trained_baselines
from evonorms_jax.report.markup import Html
from evonorms_jax.report.picture import MOST_VECTORS, LineLabel, box, canvas, inline, label_right, styled
from evonorms_jax.report.theme import light

#: Marker of an accepted candidate by origin, and the sign for it in a legend.
ORIGINS = {"random": ("o", "●"), "mutation": ("^", "▲"), "seed": ("s", "■")}
#: Markers of the baselines in their order, and the signs for them in a legend.
BASELINE_MARKERS = {"D": "◆", "s": "■", "^": "▲", "v": "▼", "<": "◀", ">": "▶", "p": "⬟"}

_MOST_BINS = 40
_BIN_WIDTHS = [step * 10**power for power in range(7) for step in (1, 2, 5)]

# Sizes of a panel of the Pareto front in pixels.
_WIDTH, _HEIGHT = 336, 330
_LEFT, _TOP, _RIGHT, _BOTTOM = 76, 12, 24, 48  # margins
_LETTER, _LINE = 6.5, 12  # width and height of a letter of a label
_AROUND = [(11, 0), (0, 12), (0, -12), (-11, 0), (9, 9), (9, -9), (-9, 9), (-9, -9), (20, 14), (20, -14)]


# -- Course of the search


@styled
def progress(search: Search) -> Html:
    """Mean accuracy by candidate with the best so far, above the outcomes by candidate.

    Args:
      search: a search with at least one candidate.
    """
    figure = canvas(1040, 470)
    above = box(figure, 62, 14, 130, 166)
    below = box(figure, 62, 334, 130, 46)
    end = len(search.history)
    _draw_accuracies(above, search)
    _draw_outcomes(below, search.history)
    for axes in (above, below):
        axes.set_xlim(0, end)
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    above.tick_params(labelbottom=False)
    below.set_xlabel("candidate")
    return inline(figure, "validation accuracy and outcomes of the candidates in order of examination")


def _draw_accuracies(axes: Axes, search: Search) -> None:
    """Draws accepted candidates, candidates of low quality, the best so far, and the baselines."""
    found = search.history.selectable()
    means = np.array([record.mean_score for record in found])
    early = low_quality(search)
    baselines = {layer.title: layer.mean_score for layer in trained_baselines(search)}
    as_bitmap = len(found) + len(early) > MOST_VECTORS
    color = light("low_quality")
    axes.scatter(
        list(early), list(early.values()), s=14, color=color, linewidth=0, clip_on=False, rasterized=as_bitmap
    )
    for origin, (marker, _) in ORIGINS.items():
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
            clip_on=False,
            rasterized=as_bitmap,
        )
    shown = [*means, *early.values(), *baselines.values()] or [0, 1]
    margin = max(0.06 * (max(shown) - min(shown)), 0.01)
    axes.set_ylim(max(min(shown) - margin, 0), min(max(shown) + margin, 1))
    axes.yaxis.grid(color=light("line"))
    axes.set_ylabel("validation accuracy")
    for mean in baselines.values():
        axes.axhline(mean, color=light("muted"), linewidth=1, linestyle=(0, (2, 3)))
    labels = [LineLabel(mean, title, light("muted")) for title, mean in baselines.items()]
    if found:
        best = np.maximum.accumulate(means)
        examined = [*(record.index for record in found), len(search.history)]
        axes.step(examined, [*best, best[-1]], where="post", color=light("accent"), linewidth=2)
        labels.append(LineLabel(best[-1], "best so far", light("accent")))
    else:
        axes.text(0.5, 0.5, "no candidate accepted yet", ha="center", transform=axes.transAxes)
    label_right(axes, labels)


def low_quality(search: Search) -> dict[int, float]:
    """The accuracy at which the quality test rejected a candidate, by index."""
    rejected = (record for record in search.history if record.evaluation.outcome == "low_quality")
    return {record.index: record.evaluation.evidence["accuracy"] for record in rejected}


def _draw_outcomes(axes: Axes, history: History) -> None:
    """Draws the share of each outcome among neighboring candidates."""
    end = len(history)
    width = next((width for width in _BIN_WIDTHS if end <= width * _MOST_BINS), end)
    counts = np.zeros((len(OUTCOMES), -(-end // width)))
    for record in history:
        counts[list(OUTCOMES).index(record.evaluation.outcome), record.index // width] += 1
    shares = counts / np.maximum(counts.sum(0), 1)
    starts = np.arange(shares.shape[1]) * width
    widths = np.minimum(width, end - starts)
    bottom = np.zeros(shares.shape[1])
    # Accepted candidates are at the bottom, where their share is easiest to follow.
    for name, share in reversed(list(zip(OUTCOMES, shares, strict=True))):
        axes.bar(starts, share, widths, bottom, align="edge", color=light(name), linewidth=0)
        bottom += share
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("outcomes")


# -- Outcomes


@styled
def funnel(history: History) -> Html:
    """The number of candidates left after each test, in the order of the tests.

    Args:
      history: a history with at least one candidate.
    """
    counts = Counter(record.evaluation.outcome for record in history)
    lost = {name: counts[name] for name in OUTCOMES if name != "accepted" and counts[name]}
    rows = [("examined", "muted", 0, len(history), f"{len(history):,}")]
    left = len(history)
    for name, count in lost.items():
        left -= count
        note = f"\N{MINUS SIGN}{count:,}, {left:,} left"
        rows.append((OUTCOMES[name].title, name, left, count, note))
    rows.append((OUTCOMES["accepted"].title, "accepted", 0, left, f"{left:,}"))

    figure = canvas(600, 34 * len(rows) + 16)
    axes = box(figure, 116, 8, 26 + 7 * max(len(note) for *_, note in rows), 8)
    for place, (_, color, start, count, note) in enumerate(rows):
        axes.barh(place, count, left=start, height=0.62, color=light(color))
        axes.text(1.03, place, note, va="center_baseline", transform=axes.get_yaxis_transform())
        if place + 1 < len(rows):
            edge = start if place else count  # the end of the next bar: the number left after this test
            axes.plot([edge, edge], [place, place + 1], color=light("muted"), linewidth=0.8)
    axes.set(xlim=(0, len(history)), ylim=(len(rows) - 0.5, -0.5), xticks=[])
    axes.set_yticks(range(len(rows)), [title for title, *_ in rows], color=light("ink"))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return inline(figure, "number of candidates that each test rejected")


# -- Pareto front


@styled
def pareto(search: Search, labels: Mapping[int, str]) -> list[Html]:
    """A panel for each pair of anchors: accepted candidates, their Pareto front over all anchors, baselines.

    A panel shows the front, the baselines and the better half of the candidates. Others may lie outside.

    Args:
      search: a search with an accepted candidate.
      labels: labels of members of the front by candidate index.
    """
    found = search.history.selectable()
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
    """Makes room for all prominent points and the better half of the scores, both `[N, 2]`."""
    low = np.minimum(prominent.min(0), np.median(scores, axis=0))
    high = prominent.max(0)
    margin = np.maximum(0.09 * (high - low), 0.004)
    axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axes.grid(color=light("line"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))


def _label(axes: Axes, points: np.ndarray, names: Sequence[str], obstacles: np.ndarray) -> None:
    """Writes each name beside its point, `[N, 2]`, away from other names and from most markers."""
    size = np.array([_WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM])

    def pixels(values):
        low, high = np.array([axes.get_xlim(), axes.get_ylim()]).T
        return (values - low) / (high - low) * size

    markers = np.concatenate([pixels(points), pixels(obstacles)])
    placed: list[tuple[np.ndarray, np.ndarray]] = []  # center and half the size of each name

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
