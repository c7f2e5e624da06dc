"""The cost of layers: the section that holds it against the accuracy, and the text on a card.

Costs are counted from the graphs, see `search_space.cost`.
"""

from collections.abc import Sequence

from evonorms_jax.evolution.records import ScoredLayer, Search, cost_front, trained_baselines
from evonorms_jax.report.markup import DASH, Html, element, percent, section, table
from evonorms_jax.search_space import Graph
from evonorms_jax.search_space.cost import layer_cost
from evonorms_jax.search_space.simplify import readable

_HEADER = ("", "layer", "equation", "passes", "at inference", "bytes", "state", "trainable", "mean")
_NOTE = (
    "Layers found that no other one beats both in mean accuracy and in cost, the cheapest first, and the "
    "baselines (shaded). Passes are reads and writes of tensors of the size of x in a training step, bytes "
    "those for one number of x in float32. State and trainable numbers are those of a channel. All are "
    "counted from the graph, not measured."
)


def trade_off(search: Search, top: Sequence[ScoredLayer]) -> Html:
    """The layers that are worth their cost, and the baselines."""
    front = cost_front(search.history)
    if not front:
        return Html("")
    numbers = {layer.index: f"#{number}" for number, layer in enumerate(top)}
    rows = [
        ("", _cells(numbers.get(r.index, ""), f"candidate {r.index}", r.graph, r.mean_score)) for r in front
    ]
    baselines = sorted(trained_baselines(search), key=lambda layer: layer_cost(layer.graph).passes)
    rows += [("baseline", _cells("", each.title, each.graph, each.mean_score)) for each in baselines]
    return section("Accuracy and cost", table(_HEADER, rows, 3), element("p", _NOTE, css="note"))


def _cells(number: str, title: str, graph: Graph, mean: float | None) -> list[object]:
    cost = layer_cost(graph)
    numbers = cost.passes, cost.inference, cost.bytes(), cost.state or DASH, cost.parameters
    return [number, title, element("span", readable(graph), css="text"), *numbers, percent(mean)]


def text(graph: Graph) -> str:
    """The cost of a layer in words."""
    cost = layer_cost(graph)
    return (
        f"{cost.passes} passes over tensors of the size of x in a training step, {cost.bytes()} bytes for "
        f"each number in float32, {cost.inference} passes at inference, {cost.parameters} trainable and "
        f"{cost.state} moving numbers for each channel"
    )
