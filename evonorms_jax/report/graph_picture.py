"""Pictures of a layer: its graph as boxes and arrows, and its typeset equation.

The graph is laid out in layers (Sugiyama et al. 1981), which suits its dozen nodes. The leaves are in the
first column, every node is right of its inputs, and the output is in the last column. An edge that passes a
column gets a waypoint there, so that it runs between the boxes. The edges out of one node share waypoints.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.mathtext import MathTextParser
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from evonorms_jax.report.markup import Html
from evonorms_jax.report.picture import box, canvas, inline, spread, styled, styled_math
from evonorms_jax.report.theme import light
from evonorms_jax.search_space import LEAVES, OPS, Graph

# Sizes in pixels.
BOX_GAP = 48.0  # between the centers of two boxes of a column
WAY_GAP = 16.0  # between two waypoints of a column
_COLUMN = 130
_HALF_WIDTH, _HALF_HEIGHT = 44, 16
_PORT = 7  # from the middle of a box to the end of each of two inputs
_MARGIN = 48
_OUTPUT_ARROW = 34

_SWEEPS = 24
_LIFT = 0.9


# -- Layout


class Place(NamedTuple):
    """A place in a column: the box of a node, or the waypoint of the edges of a node that pass the column.

    Attributes:
      node: index of the node.
      column: index of the column.
      is_box: whether it is the box of the node.
    """

    node: int
    column: int
    is_box: bool


class Edge(NamedTuple):
    """An input of a node.

    Attributes:
      places: places from the box of the source to the box of the target.
      port: end of the edge at the target: 0 for the only input, -1 for the upper of two and 1 for the lower.
    """

    places: tuple[Place, ...]
    port: int


class Layout(NamedTuple):
    """A drawing in columns.

    Attributes:
      boxes: place of each node by index, leaves included.
      edges: inputs of all nodes.
      height: vertical position of every place, from 0 at the top, in pixels.
    """

    boxes: list[Place]
    edges: list[Edge]
    height: dict[Place, float]


def layered(graph: Graph) -> Layout:
    """The layout of all nodes. In every column dead nodes are below the live ones."""
    columns = [0] * len(LEAVES)
    for _, inputs in graph.nodes:
        columns.append(1 + max(columns[i] for i in inputs))
    columns[-1] = max(columns)
    boxes = [Place(node, column, True) for node, column in enumerate(columns)]

    def route(source: int, target: int) -> tuple[Place, ...]:
        passed = range(columns[source] + 1, columns[target])
        return (boxes[source], *(Place(source, column, False) for column in passed), boxes[target])

    routes = [
        [route(source, target) for source in inputs]
        for target, (_, inputs) in enumerate(graph.nodes, start=len(LEAVES))
    ]
    live = {boxes[node] for node in graph.live_nodes}
    live |= {place for ways in routes for way in ways if way[-1] in live for place in way}
    height = _heights([way for ways in routes for way in ways], live)
    for leaf in boxes[: len(LEAVES)]:  # an unused one is placed below the others
        if leaf not in height:
            height[leaf] = BOX_GAP + max(height[place] for place in height if place.column == 0)
    edges = []
    for (op, _), ways in zip(graph.nodes, routes, strict=True):
        if OPS[op].commutative:  # the order of its inputs is free
            ways.sort(key=lambda way: height[way[-2]])
        ports = (-1, 1) if len(ways) == 2 else (0,)
        edges += [Edge(way, port) for way, port in zip(ways, ports, strict=True)]
    return Layout(boxes, edges, height)


def _heights(routes: Sequence[Sequence[Place]], live: set[Place]) -> dict[Place, float]:
    """Heights of the clearest picture of several sweeps, in which each column follows its neighbor."""
    steps = sorted({step for way in routes for step in pairwise(way)})
    places = sorted({place for step in steps for place in step})
    columns = [[p for p in places if p.column == c] for c in range(places[-1].column + 1)]
    before: dict[Place, list[Place]] = {place: [] for place in places}
    after: dict[Place, list[Place]] = {place: [] for place in places}
    for place, follower in steps:
        after[place].append(follower)
        before[follower].append(place)

    height = dict.fromkeys(places, 0.0)
    pictures = []
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        near = {p: (before[p] or after[p]) if forward else (after[p] or before[p]) for p in places}
        for column in columns if forward else reversed(columns):
            height = height | _settled(column, near, height, live)
        top = min(height.values())
        height = {place: value - top for place, value in height.items()}
        pictures.append(height)
    return min(pictures, key=lambda height: _disorder(steps, height))


def _settled(
    column: Sequence[Place],
    near: Mapping[Place, Sequence[Place]],
    height: Mapping[Place, float],
    live: set[Place],
) -> dict[Place, float]:
    """Heights in a column: the mean height of the places next to each, live places first, with gaps."""
    wish = {}
    for place in column:
        # Dead neighbours do not pull a live place.
        pulls = [other for other in near[place] if other in live or place not in live]
        wish[place] = float(np.mean([height[other] for other in pulls or [place]]))
        if place not in live:  # dead parts without a live neighbor would drift down
            wish[place] *= _LIFT
    order = sorted(column, key=lambda place: (place not in live, wish[place]))
    gaps = [(BOX_GAP, (BOX_GAP + WAY_GAP) / 2, WAY_GAP)[2 - a.is_box - b.is_box] for a, b in pairwise(order)]
    return dict(zip(order, spread([wish[place] for place in order], gaps).tolist(), strict=True))


def _disorder(steps: Sequence[tuple[Place, Place]], height: Mapping[Place, float]) -> tuple[int, float]:
    """The number of crossings between the same two columns, and the total vertical length of the steps."""
    lines = [(place.column, height[place], height[follower]) for place, follower in steps]
    crossings = sum(
        a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0 for i, a in enumerate(lines) for b in lines[:i]
    )
    return crossings, sum(abs(start - end) for _, start, end in lines)


# -- Drawing


@styled
def draw_graph(graph: Graph) -> Html:
    """Draws all nodes from the leaves on the left to the output on the right.

    At a `div` the numerator ends above the denominator. At other ops the order of the inputs is free. Live
    nodes and the edges between them are solid, dead ones are dashed and pale. Each node shows its index in
    the JSON form of the graph.
    """
    plan = layered(graph)
    width = plan.boxes[-1].column * _COLUMN + 2 * _MARGIN + _OUTPUT_ARROW
    height = max(plan.height.values()) + 2 * (_HALF_HEIGHT + 12)
    figure = canvas(width, height)
    axes = box(figure, 0, 0, 0, 0)
    axes.set(xlim=(-_MARGIN, width - _MARGIN), ylim=(height - _HALF_HEIGHT - 12, -_HALF_HEIGHT - 12))
    axes.set_axis_off()
    live = set(graph.live_nodes)
    # Dead edges come first, so that live ones are drawn over them.
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


def _draw_edge(axes: Axes, plan: Layout, edge: Edge, alive: bool) -> None:
    """Draws a smooth line along the waypoints that is level at every column."""
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


def _draw_output(axes: Axes, plan: Layout) -> None:
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


# -- Equation

# LaTeX writes out repeated sub-expressions. A longer formula would not be readable.
_LONGEST = 400
_PARSER = MathTextParser("path")
# Delimiters around a flat term, where mathtext draws stretched ones too small.
_FLAT = re.compile(r"\\left([(|])((?:(?!\\left|\\right|\\frac).)*)\\right([)|])")


@styled_math
def typeset(graph: Graph, size: float = 18) -> Html | None:
    """The equation `y = ...` as a picture, or None if it is too long or mathtext cannot parse it."""
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
