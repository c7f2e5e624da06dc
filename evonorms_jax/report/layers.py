"""The part of the page on the layers found: all in one table with the baselines, and each by itself."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from evonorms_jax.report.drawing import draw_graph
from evonorms_jax.report.markup import DASH, Html, definitions, element, join, percent, points, section, table
from evonorms_jax.report.records import OUTCOMES, Layer, Search, mean_score
from evonorms_jax.report.summary import equation, reference_of


def comparison(search: Search, top: Sequence[Layer]) -> Html:
    """The layers found and the baselines, trained the same way, by mean accuracy."""
    reference = reference_of(search)
    rows = [(f"#{number}", layer) for number, layer in enumerate(top)]
    rows += [("", layer) for layer in search.baselines]
    if not rows:
        return Html("")
    rows.sort(key=lambda row: -(mean_score(row[1].scores) or 0))
    header = ["", "layer", "equation", *search.anchors, "mean", "points over BN-ReLU"]
    lines = []
    for number, layer in rows:
        mean = mean_score(layer.scores)
        name = [layer.title, Html(' <span class="badge">Pareto</span>') if layer.pareto else ""]
        text = element("span", layer.equation, css="text")
        if layer.outcome != "accepted":
            text = join([text, element("div", _rejection(layer), css="note")])
        lines.append(
            (
                "" if number else "baseline",
                [
                    number,
                    element("span", *name, css="name"),
                    text,
                    *(percent(layer.scores.get(anchor)) for anchor in search.anchors),
                    element("b", percent(mean)),
                    _advantage(mean, reference) if layer is not reference else DASH,
                ],
            )
        )
    note = "Baselines, shaded, are trained the same way and judged by the same tests."
    return section(
        "Layers found, beside the baselines", table(header, lines, 3), element("p", note, css="note")
    )


def _advantage(mean: float | None, reference: Layer | None) -> str:
    return DASH if mean is None or reference is None else points(mean - mean_score(reference.scores))


def _rejection(layer: Layer) -> str:
    facts = (
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in layer.figure.items()
    )
    return f"rejected: {OUTCOMES[layer.outcome].title} ({', '.join(facts)})"


def top_layers(search: Search, top: Sequence[Layer]) -> Html:
    """Each layer found: its graph, its equation, its scores, and how to use it."""
    if not top:
        return Html("")
    text = [
        "Boxes are nodes, with their index; edges run from left to right. The upper input of div is the "
        "numerator. What does not reach the output is dashed: it computes nothing, but a mutation can "
        "revive it.",
        Html(
            "In equations, &mu; is a mean, &nu; a root mean square and <i>s</i> a standard deviation over "
            "the axes below it; &sigma; is the sigmoid; slog and ssqrt keep the sign of their argument."
        ),
    ]
    if not search.finished:
        text.insert(0, "The search is not finished: these are the best layers so far.")
    keys = [
        element("span", Html(f'<span class="swatch {color}"></span>'), name, css="key")
        for color, name in [("leaf", "leaf"), ("moment", "aggregation"), ("card", "element-wise op")]
    ]
    cards = (_card(search, number, layer) for number, layer in enumerate(top))
    return section(
        "Top layers", *(element("p", line, css="note") for line in text), element("div", *keys), join(cards)
    )


def _card(search: Search, number: int, layer: Layer) -> Html:
    scores = " · ".join(f"{anchor} {percent(layer.scores.get(anchor))}" for anchor in search.anchors)
    facts = {
        "scores": element("span", scores, " · ", element("b", f"mean {percent(mean_score(layer.scores))}")),
        "text": element("span", f"y = {layer.equation}", css="text"),
        "use": element("code", _use(search, number, layer)),
    }
    badge = Html('<span class="badge">Pareto</span>') if layer.pareto else ""
    return element(
        "article",
        element("h3", f"#{number} · {layer.title}", badge),
        equation(layer),
        element("div", draw_graph(layer.graph), css="frame"),
        definitions(facts),
    )


def _use(search: Search, number: int, layer: Layer) -> str:
    """The line that puts the layer into a model."""
    if search.saved[number : number + 1] == [layer.index]:
        return f'norm_act("top_layers.json#{number}")'
    return f"norm_act(Graph.parse({json.dumps(layer.equation)}))"  # not in the file yet


def settings(config: Mapping[str, Any]) -> Html:
    """The config: its own values first, then a list a group."""
    groups = {"search": {key: value for key, value in config.items() if not isinstance(value, Mapping)}}
    groups |= {key: value for key, value in config.items() if isinstance(value, Mapping)}
    lists = [
        element(
            "div",
            element("h3", name),
            definitions({key: _setting(value) for key, value in group.items()}),
        )
        for name, group in groups.items()
    ]
    return section("Settings", element("div", *lists, css="settings"))


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_setting, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
