"""A graph of the search space as a picture: boxes in columns, live nodes told apart from dead ones."""

from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from evonorms_jax.report import layout
from evonorms_jax.report.markup import Html
from evonorms_jax.report.palette import light
from evonorms_jax.report.picture import box, canvas, inline, styled
from evonorms_jax.search_space import LEAVES, OPS, Graph

# In pixels.
_COLUMN = 130
_HALF_WIDTH, _HALF_HEIGHT = 44, 16
_PORT = 7  # from the middle of a box to where each of two inputs ends
_MARGIN = 48
_OUTPUT_ARROW = 34


@styled
def draw_graph(graph: Graph) -> Html:
    """All nodes from the leaves, left, to the output, right.

    The numerator of `div` ends above the denominator; of other ops, the order of the inputs is free. Live
    nodes and the edges between them are solid; dead ones are dashed and pale. Each node carries its index as
    in the JSON form.
    """
    plan = layout.layered(graph)
    width = plan.boxes[-1].column * _COLUMN + 2 * _MARGIN + _OUTPUT_ARROW
    height = max(plan.height.values()) + 2 * (_HALF_HEIGHT + 12)
    figure = canvas(width, height)
    axes = box(figure, 0, 0, 0, 0)
    axes.set(xlim=(-_MARGIN, width - _MARGIN), ylim=(height - _HALF_HEIGHT - 12, -_HALF_HEIGHT - 12))
    axes.set_axis_off()
    live = set(graph.live_nodes)
    # Dead parts first, so that live ones lie on top.
    for edge in sorted(plan.edges, key=lambda edge: edge.places[-1].node in live):
        _draw_edge(axes, plan, edge, edge.places[-1].node in live)
    for node, place in enumerate(plan.boxes):
        _draw_node(axes, graph, node, place.column * _COLUMN, plan.height[place], node in live)
    _draw_output(axes, plan)
    return inline(figure, f"graph of y = {graph}")


def _draw_node(axes: Axes, graph: Graph, node: int, x: float, y: float, alive: bool) -> None:
    is_output = node == len(LEAVES) + len(graph.nodes) - 1
    name = LEAVES[node] if node < len(LEAVES) else graph.nodes[node - len(LEAVES)].op
    fill = "leaf" if node < len(LEAVES) else "moment" if OPS[name].kind else "card"
    ink = light("ink" if alive else "dead")
    axes.add_patch(
        FancyBboxPatch(
            (x - _HALF_WIDTH, y - _HALF_HEIGHT),
            2 * _HALF_WIDTH,
            2 * _HALF_HEIGHT,
            boxstyle=f"round,pad=0,rounding_size={_HALF_HEIGHT if node < len(LEAVES) else 5}",
            facecolor=light(fill if alive else "card"),
            edgecolor=light("accent" if is_output else "muted" if alive else "dead"),
            linewidth=2.2 if is_output else 1.1,
            linestyle="-" if alive else (0, (4, 3)),
        )
    )
    axes.text(x, y - 3, name, ha="center", va="center", size=12, color=ink)
    axes.text(x, y + 10, str(node), ha="center", va="center", size=8, color=ink)


def _draw_edge(axes: Axes, plan: layout.Layout, edge: layout.Edge, alive: bool) -> None:
    """A smooth line along the waypoints, level where it passes a column."""
    points = [(place.column * _COLUMN, plan.height[place]) for place in edge.places]
    points[-1] = (points[-1][0], points[-1][1] + _PORT * edge.port)
    vertices = [(points[0][0] + _HALF_WIDTH, points[0][1])]
    codes = [Path.MOVETO]
    for (left, start), (right, end) in pairwise(points):
        middle = (left + right) / 2
        vertices += [(middle, start), (middle, end), (right - _HALF_WIDTH, end)]
        codes += 3 * [Path.CURVE4]
        if right != points[-1][0]:
            vertices.append((right + _HALF_WIDTH, end))
            codes.append(Path.LINETO)
    axes.add_patch(
        FancyArrowPatch(
            path=Path(vertices, codes),
            arrowstyle="-|>,head_length=5,head_width=2.4",
            mutation_scale=1,
            shrinkA=0,
            shrinkB=0,
            color=light("muted" if alive else "dead"),
            linewidth=1.2 if alive else 0.8,
            linestyle="-" if alive else (0, (4, 3)),
        )
    )


def _draw_output(axes: Axes, plan: layout.Layout) -> None:
    place = plan.boxes[-1]
    color = light("accent")
    x, y = place.column * _COLUMN + _HALF_WIDTH, plan.height[place]
    axes.annotate(
        "y",
        (x + 1, y),
        (x + _OUTPUT_ARROW, y),
        ha="right",
        va="center",
        size=13,
        color=color,
        arrowprops={"arrowstyle": "<|-", "color": color, "linewidth": 1.6, "shrinkA": 2, "shrinkB": 0},
    )
