"""Curves of precision by recall of a detector."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from evonorms_jax.detection.scores import Precision
from evonorms_jax.report.picture import LineLabel, as_file, box, canvas, label_right, styled
from evonorms_jax.report.theme import light

#: IoU thresholds of the curves, their names and colors.
_THRESHOLDS = {0.9: ("AP90", "ink"), 0.75: ("AP75", "accepted"), 0.5: ("AP50", "accent")}
_WIDTH, _HEIGHT, _LEFT, _RIGHT = 300, 320, 62, 96  # points


@styled
def draw(precisions: Mapping[str, Precision], names: Sequence[str]) -> dict[str, bytes]:
    """A panel for each kind of score: the mean of all categories at three IoU thresholds, and each at 0.5.

    Args:
      precisions: precisions by kind, such as "box" and "mask".
      names: names of the categories.

    Returns:
      The figure as files, by their kind "svg" and "png".
    """
    step = _LEFT + _WIDTH + _RIGHT
    figure = canvas(step * len(precisions), _HEIGHT, light("card"))
    for place, (kind, precision) in enumerate(precisions.items()):
        right = step * (len(precisions) - 1 - place) + _RIGHT
        axes = box(figure, step * place + _LEFT, 34, right, 52)
        axes.set_title(f"{kind}, {len(names)} categories", fontsize=11, color=light("ink"), loc="left")
        _draw_panel(axes, precision)
    return {kind: as_file(figure, kind) for kind in ("svg", "png")}


def _draw_panel(axes: Axes, precision: Precision) -> None:
    known = ~np.isnan(precision.precisions).all((0, 1))
    labels = []
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    for threshold, (name, color) in _THRESHOLDS.items():
        curves = precision.precisions[np.argmin(np.abs(precision.thresholds - threshold))][:, known]
        if not curves.size:
            continue
        if threshold == min(_THRESHOLDS):
            axes.plot(precision.recalls, curves, color=light("dead"), linewidth=0.6, alpha=0.5)
        mean = curves.mean(1)
        axes.plot(precision.recalls, mean, color=light(color), linewidth=2)
        # All curves end at the bottom, so the names have no leaders.
        labels.append(LineLabel(np.nan, f"{name} {100 * mean.mean():.1f}", light(color)))
    axes.grid(color=light("line"))
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    label_right(axes, labels, gap=17, leader=12)
