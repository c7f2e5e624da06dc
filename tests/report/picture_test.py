"""Placement of labels: optimal within its constraints, and all names inside the axes."""

import numpy as np
import pytest

from evonorms_jax.report.picture import LineLabel, box, canvas, label_right, spread, styled


@pytest.mark.parametrize("bounded", [False, True])
def test_spread_keeps_order_gaps_and_bounds_and_moves_as_little_as_possible(rng, bounded):
    for _ in range(50):
        size = int(rng.integers(1, 8))
        wanted, gaps = rng.normal(size=size) * 10, rng.uniform(0, 6, size - 1)
        least, most = (-5.0, gaps.sum() + 2) if bounded else (-np.inf, np.inf)
        places = spread(wanted, gaps, least=least, most=most)
        assert (np.diff(places) >= gaps - 1e-9).all()
        assert places[0] >= least and places[-1] <= most + 1e-9
        # The problem is convex: no feasible point, near or far, is closer to the wanted positions.
        others = np.cumsum(np.concatenate([[0.0], gaps]) + np.abs(rng.normal(size=(500, size))), axis=1)
        others += (wanted.mean() - others.mean(axis=1, keepdims=True)) if not bounded else -others[:, :1]
        others = np.concatenate([others, 0.99 * places + 0.01 * others])
        others = others[(others[:, 0] >= least) & (others[:, -1] <= most)]
        assert (((others - wanted) ** 2).sum(1) >= ((places - wanted) ** 2).sum() - 1e-9).all()


def test_spread_leaves_positions_that_fit():
    assert spread([1.0, 5.0, 9.0], [2.0, 4.0]).tolist() == [1.0, 5.0, 9.0]
    assert spread([4.0, 4.0], [2.0]).tolist() == [3.0, 5.0]
    assert spread([4.0, 4.0], [2.0], most=4.0).tolist() == [2.0, 4.0]
    assert spread([], []).tolist() == []


@styled
def test_names_of_lines_are_apart_and_within_the_axes():
    axes = box(canvas(400, 200), 20, 20, 100, 20)
    axes.set_ylim(0, 1)
    lines = {"top": 1.0, "also top": 1.0, "middle": 0.5, "bottom": 0.0, "absent": np.nan}
    label_right(axes, [LineLabel(height, text, "black") for text, height in lines.items()], gap=20)
    places = {text.get_text(): text.xyann[1] for text in axes.texts}
    heights = sorted(places.values())
    assert heights[0] >= 0 and heights[-1] <= 1
    assert np.diff(heights).min() >= 20 / 160 - 1e-9
    assert places["middle"] == pytest.approx(0.5)
    assert [text.arrow_patch is None for text in axes.texts] == [
        text.get_text() == "absent" for text in axes.texts
    ]
