"""The first part of the page: what was examined, what came out, and how the search went."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from evonorms_jax.evolution.history import OUTCOMES
from evonorms_jax.evolution.records import (
    ScoredLayer,
    Search,
    mean_score,
    trained_baselines,
)
from evonorms_jax.report import figures
from evonorms_jax.report.figures import typeset
from evonorms_jax.report.graph_picture import draw_graph
from evonorms_jax.report.markup import (
    DASH,
    Html,
    definitions,
    duration,
    element,
    escape,
    figure,
    join,
    percent,
    points,
    section,
    table,
)


def reference_of(search: Search) -> ScoredLayer | None:
    """The baseline that others are compared with, BN-ReLU, if it was trained."""
    return next((layer for layer in trained_baselines(search) if layer.title == "BN-ReLU"), None)


def header(search: Search) -> Html:
    """Title, and how far the search is."""
    examined, budget = len(search.history), search.config["budget"]
    state = "finished" if search.finished else "not finished"
    line = f"{examined} of {budget} candidates examined · {state}"
    notes = ["The last line of the history was incomplete and is left out."] if search.torn else []
    return element(
        "header",
        element("h1", search.config["name"]),
        element("p", f"Search for normalization-activation layers · {search.config['method']} · {line}"),
        *(element("p", note, css="note") for note in notes),
    )


def tiles(search: Search, top: Sequence[ScoredLayer]) -> Html:
    """The figures that one asks for first."""
    examined = len(search.history)
    seconds = sum(record.evaluation.seconds for record in search.history)
    facts = [
        ("candidates examined", examined),
        ("trained fully", sum(record.evaluation.outcome == "accepted" for record in search.history)),
        (f"of device time, {seconds:,.0f}\N{NO-BREAK SPACE}s", duration(seconds)),
        ("candidates per device minute", f"{60 * examined / seconds:.1f}" if seconds else DASH),
        ("best mean accuracy", percent(mean_score(top[0].scores) if top else None)),
    ]
    if search.idle_share is not None:
        facts.append(("of that the devices waited, in the last run", percent(search.idle_share)))
    if reference := reference_of(search):
        facts.append(("BN-ReLU, trained the same way", percent(mean_score(reference.scores))))
    return element(
        "div",
        *(element("div", element("b", value), element("span", name), css="tile") for name, value in facts),
        css="tiles",
    )


def equation(layer: ScoredLayer, size: int = 18) -> Html:
    """The equation of a layer, typeset in letters of `size` pixels if that can be, else as text."""
    picture = typeset(layer.graph, size)
    if picture is None:
        return element("p", f"y = {layer.equation}", css="text")
    return element("div", picture, css="formula")


def best_layer(search: Search, top: Sequence[ScoredLayer]) -> Html:
    """The best layer so far and its scores beside those of BN-ReLU."""
    if not top:
        return section("Best layer", element("p", "No candidate has been accepted yet."))
    best, reference = top[0], reference_of(search)
    columns = [("best layer", best), *([("BN-ReLU", reference)] if reference else [])]
    header = ["anchor", *(title for title, _ in columns), *(["difference, points"] if reference else [])]
    rows = []
    for anchor in (*search.anchors, "mean"):
        scores = [
            mean_score(layer.scores) if anchor == "mean" else layer.scores[anchor] for _, layer in columns
        ]
        difference = [points(scores[0] - scores[1])] if reference else []
        name = element("b", anchor) if anchor == "mean" else anchor
        rows.append(("", [name, *map(percent, scores), *difference]))
    name = element("p", f"{best.title}, by mean accuracy", css="note")
    formula = element("div", equation(best, size=22), name)
    return section("Best layer", element("div", formula, table(header, rows, text_columns=1), css="pair"))


def progress(search: Search) -> Html:
    """Accuracy over the course of the search."""
    if not search.history:
        return section("Course of the search", element("p", "No candidate has been examined yet."))
    keys = [
        element("span", Html(f'<span style="color:var(--{color})">{sign}</span> '), text, css="key")
        for sign, color, text in [
            ("●", "accepted", "accepted, random"),
            ("▲", "accepted", "accepted, mutation"),
            ("■", "accepted", "accepted, seed"),
            ("●", "low_quality", "rejected for low quality, with the accuracy at that time"),
            ("━", "accent", "best so far"),
        ]
    ]
    text = (
        "Validation accuracy, mean over the anchors; below, the share of each outcome among neighbouring "
        "candidates, in the colours of the next table."
    )
    return section(
        "Course of the search",
        figure([figures.progress(search)], join([element("div", *keys), element("p", text)])),
    )


def outcomes(search: Search) -> Html:
    """The funnel of the tests, and what each cost."""
    if not search.history:
        return Html("")
    rows = []
    for name, outcome in OUTCOMES.items():
        chosen = [r.evaluation for r in search.history if r.evaluation.outcome == name]
        cells = [
            Html(f'<span class="swatch {name}"></span>{escape(outcome.title)}'),
            outcome.meaning,
            len(chosen),
            percent(len(chosen) / len(search.history)),
            f"{sum(evaluation.steps for evaluation in chosen):,}",
            duration(sum(evaluation.seconds for evaluation in chosen)),
        ]
        rows.append(("", cells))
    header = ["outcome", "meaning", "candidates", "share", "training steps", "device time"]
    caption = "How many candidates each test rejects and leaves, in the order of the tests."
    return section(
        "Outcomes",
        figure([figures.funnel(search.history)], caption),
        table(header, rows, text_columns=2),
    )


def pareto(search: Search, top: Sequence[ScoredLayer]) -> Html:
    """The Pareto front over the anchors."""
    title = "Pareto front"
    if not search.history.accepted():
        return section(title, element("p", "No candidate has been accepted yet."))
    if len(search.anchors) == 1:
        return section(title, element("p", "With a single anchor, the front is the best layer."))
    labels = {layer.index: f"#{number}" for number, layer in enumerate(top)}
    keys = [("●", "accepted", "Pareto front"), ("●", "inert", "other accepted candidates")]
    keys += [
        (sign, "ink", layer.title)
        for layer, sign in zip(trained_baselines(search), figures.BASELINE_MARKERS.values(), strict=False)
    ]
    legend = [
        element("span", Html(f'<span style="color:var(--{color})">{sign}</span> '), text, css="key")
        for sign, color, text in keys
    ]
    text = (
        "Validation accuracies. A candidate is on the front if no other is at least as good on every anchor "
        "and better on one; numbers as in the table below. The poorer half may lie outside the panels."
    )
    caption = join([element("div", *legend), element("p", text)])
    return section(title, figure(figures.pareto(search, labels), caption))


def comparison(search: Search, top: Sequence[ScoredLayer]) -> Html:
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


def _advantage(mean: float | None, reference: ScoredLayer | None) -> str:
    return DASH if mean is None or reference is None else points(mean - mean_score(reference.scores))


def _rejection(layer: ScoredLayer) -> str:
    facts = (
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in layer.evidence.items()
    )
    return f"rejected: {OUTCOMES[layer.outcome].title} ({', '.join(facts)})"


def top_layers(search: Search, top: Sequence[ScoredLayer]) -> Html:
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


def _card(search: Search, number: int, layer: ScoredLayer) -> Html:
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


def _use(search: Search, number: int, layer: ScoredLayer) -> str:
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
