"""The sections of the page, in its order: each a function of the search that returns HTML."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from evonorms_jax.evolution.history import OUTCOMES, evidence_text, percent_text
from evonorms_jax.evolution.records import ScoredLayer, Search, layer_title, trained_baselines
from evonorms_jax.evolution.reranking import RerankedLayer
from evonorms_jax.report import cost, figures, lineage
from evonorms_jax.report.graph_picture import draw_graph, typeset
from evonorms_jax.report.markup import (
    DASH,
    Html,
    breakable,
    definitions,
    duration,
    element,
    figure,
    join,
    legend,
    mark,
    percent,
    points,
    section,
    swatch,
    table,
)
from evonorms_jax.search_space.simplify import simplify

_PARETO_BADGE = element("span", "Pareto", css="badge")
_MOST_ALIKE = 12  # members of a cluster that are named


def _reference(search: Search) -> ScoredLayer | None:
    """The first baseline that passed the tests, with which others are compared, or None before one has."""
    return next(iter(trained_baselines(search)), None)


# -- Summary


def header(search: Search) -> Html:
    """The title and the progress of the search."""
    examined, limit = len(search.history), search.device_steps
    state = "finished" if search.finished else "not finished"
    line = f"{examined:,} of {search.config['budget']:,} candidates examined"
    if limit is not None:
        line = f"{examined:,} candidates examined in {search.history.steps():,} of {limit:,} steps"
    notes = ["The last line of the history was incomplete and is left out."] if search.torn else []
    return element(
        "header",
        element("h1", search.config["name"]),
        element(
            "p", f"Search for normalization-activation layers · {search.config['method']} · {line} · {state}"
        ),
        *(element("p", note, css="note") for note in notes),
    )


def tiles(search: Search, top: Sequence[ScoredLayer]) -> Html:
    """The main numbers of the search."""
    examined = len(search.history)
    seconds = sum(record.evaluation.seconds for record in search.history)
    facts = [
        ("candidates examined", f"{examined:,}"),
        ("trained in full", f"{len(search.history.selectable()):,}"),
        ("device time", duration(seconds)),
        ("candidates per device minute", f"{60 * examined / seconds:,.1f}" if seconds else DASH),
        ("best mean accuracy", percent(top[0].mean_score if top else None)),
    ]
    if reference := _reference(search):
        again = [_fresh_mean(search, layer) for layer in (*top[:1], reference)]
        if top and None not in again:
            facts[-1] = ("mean accuracy of the best, fresh seeds", percent(again[0]))
            facts.append((f"mean accuracy of {reference.title}, fresh seeds", percent(again[1])))
        else:
            facts.append((f"mean accuracy of {reference.title}", percent(reference.mean_score)))
    if search.idle_share is not None:
        facts.append(("device idle time, last run", percent(search.idle_share)))
    return element(
        "div",
        *(element("div", element("b", value), element("span", name), css="tile") for name, value in facts),
        css="tiles",
    )


def best_layer(search: Search, top: Sequence[ScoredLayer]) -> Html:
    """The best layer so far and its scores beside those of the first baseline."""
    if not top:
        return section("Best layer", element("p", "No candidate has been accepted yet."))
    best, reference = top[0], _reference(search)
    columns = [("best layer", best), *([(reference.title, reference)] if reference else [])]
    header = ["anchor", *(title for title, _ in columns), *(["difference, points"] if reference else [])]
    rows = []
    for anchor in (*search.anchors, "mean"):
        scores = [layer.mean_score if anchor == "mean" else layer.scores[anchor] for _, layer in columns]
        difference = [points(scores[0] - scores[1])] if reference else []
        name = element("b", anchor) if anchor == "mean" else anchor
        rows.append(("", [name, *map(percent, scores), *difference]))
    again = [_fresh_mean(search, layer) for _, layer in columns]
    if None not in again:
        difference = [points(again[0] - again[1])] if reference else []
        rows.append(("", [element("b", "mean, fresh seeds"), *map(percent, again), *difference]))
    judged = "by mean accuracy" if again[0] is None else "with fresh seeds"
    name = element("p", f"{best.title}, best {judged}", css="note")
    formula = element("div", _equation(best, size=22), name)
    return section("Best layer", element("div", formula, table(header, rows, text_columns=1), css="pair"))


def _equation(layer: ScoredLayer, size: int = 18) -> Html:
    """The equation of a layer, typeset in letters of `size` pixels if possible and as text otherwise."""
    picture = typeset(simplify(layer.graph), size)
    if picture is None:
        return element("p", f"y = {layer.simplified}", css="text")
    return element("div", picture, css="formula")


def progress(search: Search) -> Html:
    """Accuracies and outcomes over the course of the search."""
    if not search.history:
        return section("Course of the search", element("p", "No candidate has been examined yet."))
    origins = {record.proposal.origin for record in search.history.selectable()}
    keys = [
        (mark(sign, "accepted"), f"accepted, {origin}")
        for origin, (_, sign) in figures.ORIGINS.items()
        if origin in origins
    ]
    if figures.low_quality(search):
        keys.append((mark("●", "low_quality"), "rejected for low quality, accuracy at that time"))
    if origins:
        keys.append((mark("━", "accent"), "best so far"))
    text = (
        "Above: validation accuracy, averaged over the anchors. Below: the share of each outcome among "
        "neighboring candidates, in the colors of the next table."
    )
    caption = join([legend(keys), element("p", text)])
    return section("Course of the search", figure([figures.progress(search)], caption))


def outcomes(search: Search) -> Html:
    """The funnel of the tests and the cost of each."""
    if not search.history:
        return Html("")
    rows = []
    for name, outcome in OUTCOMES.items():
        chosen = [r.evaluation for r in search.history if r.evaluation.outcome == name]
        cells = [
            element("span", swatch(name), outcome.title),
            outcome.meaning,
            f"{len(chosen):,}",
            percent(len(chosen) / len(search.history)),
            f"{sum(evaluation.steps for evaluation in chosen):,}",
            duration(sum(evaluation.seconds for evaluation in chosen)),
        ]
        rows.append(("", cells))
    header = ["outcome", "meaning", "candidates", "share", "training steps", "device time"]
    caption = "The number of candidates that each test rejects and leaves, in the order of the tests."
    funnel = figure([figures.funnel(search.history)], caption)
    return section("Outcomes", funnel, table(header, rows, text_columns=2))


# -- Layers


def pareto(search: Search, top: Sequence[ScoredLayer]) -> Html:
    """The Pareto front over the anchors."""
    title = "Pareto front"
    if not search.history.selectable():
        return section(title, element("p", "No candidate has been accepted yet."))
    if len(search.anchors) == 1:
        return section(title, element("p", "With a single anchor, the front is the best layer."))
    labels = {layer.index: f"#{number}" for number, layer in enumerate(top)}
    keys = [(mark("●", "accepted"), "Pareto front"), (mark("●", "inert"), "other accepted candidates")]
    signs = figures.BASELINE_MARKERS.values()
    for layer, sign in zip(trained_baselines(search), signs, strict=False):
        keys.append((mark(sign, "ink"), layer.title))
    text = (
        "Validation accuracies. A candidate is on the front if no other candidate is at least as good on "
        "every anchor and better on one. Numbers refer to the table below. Candidates of the poorer half may "
        "lie outside the panels."
    )
    caption = join([legend(keys), element("p", text)])
    return section(title, figure(figures.pareto(search, labels), caption))


def comparison(search: Search, top: Sequence[ScoredLayer]) -> Html:
    """The layers found and the baselines, by mean accuracy."""
    reference = _reference(search)
    layers = [(f"#{number}", layer) for number, layer in enumerate(top)]
    layers += [("", layer) for layer in search.baselines]
    if not layers:
        return Html("")
    layers.sort(key=lambda row: -(_fresh_mean(search, row[1]) or row[1].mean_score or 0))
    fresh = ["fresh seeds"] if search.reranked else []
    gain = [f"points over {reference.title}"] if reference else []
    header = ["", "layer", "equation", *map(breakable, search.anchors), "mean", *fresh, *gain]
    rows = [
        ("" if number else "baseline", [number, *_scores(search, layer, reference)])
        for number, layer in layers
    ]
    note = (
        "Baselines (shaded) are trained and tested in the same way. Layers are alike if their outputs agree "
        "to 1 % on random inputs. The best of them stands for all. Equations are simplified. The graphs "
        "below are as they were found. ± is the sample deviation over the seeds."
    )
    return section("Layers found and baselines", table(header, rows, 3), element("p", note, css="note"))


def _scores(search: Search, layer: ScoredLayer, reference: ScoredLayer | None) -> list[object]:
    """The cells of a layer after its number."""
    mean, again = layer.mean_score, _reranked(search, layer)
    name = [layer.title, *([element("div", _PARETO_BADGE)] if layer.pareto else []), *_alike(layer)]
    text = element("span", layer.simplified, css="text")
    if layer.outcome != "accepted":
        text = join([text, element("div", _rejection(layer), css="note")])
    fresh = [] if not search.reranked else [DASH if again is None else _spread(again.mean, again.deviation)]
    return [
        element("span", *name, css="name"),
        text,
        *(percent(layer.scores.get(anchor)) for anchor in search.anchors),
        element("b", _spread(mean, layer.deviation)),
        *fresh,
        *([_gain(search, layer, reference)] if reference else []),
    ]


def _reranked(search: Search, layer: ScoredLayer) -> RerankedLayer | None:
    """The trainings of a candidate or baseline with fresh seeds, if there are any."""
    for again in search.reranked:
        if again.index == layer.index and (again.index is not None or layer_title(again.name) == layer.title):
            return again
    return None


def _fresh_mean(search: Search, layer: ScoredLayer) -> float | None:
    again = _reranked(search, layer)
    return None if again is None else again.mean


def _gain(search: Search, layer: ScoredLayer, reference: ScoredLayer) -> str:
    """The points over the reference: with fresh seeds, or else in the search."""
    if layer is reference:
        return DASH
    means = _fresh_mean(search, layer), _fresh_mean(search, reference)
    means = means if None not in means else (layer.mean_score, reference.mean_score)
    return DASH if None in means else points(means[0] - means[1])


def _spread(mean: float | None, deviation: float | None) -> str:
    """The mean in percent, with the sample deviation over the seeds if there are several."""
    return percent(mean) if deviation is None else f"{percent_text(mean, deviation)}\N{NO-BREAK SPACE}%"


def _alike(layer: ScoredLayer) -> list[object]:
    """The size of the layer's cluster, if it is not alone."""
    size = len(layer.members)
    return [element("div", f"{size} alike", css="note")] if size > 1 else []


def _rejection(layer: ScoredLayer) -> str:
    return f"rejected: {OUTCOMES[layer.outcome].title} ({evidence_text(layer.evidence)})"


def top_layers(search: Search, top: Sequence[ScoredLayer]) -> Html:
    """A card for each layer found: its graph, its equation, its scores, and the call that builds it."""
    if not top:
        return Html("")
    notes = [
        "Boxes are nodes with their index. Edges run from left to right. The upper input of div is the "
        "numerator. Dashed nodes do not reach the output. A mutation can connect them.",
        Html(
            "In equations, &mu; is a mean, &nu; a root mean square and <i>s</i> a standard deviation over "
            "the axes in the subscript: the batch <i>b</i>, space <i>w</i>, <i>h</i>, channels <i>c</i>, a "
            "group of channels <i>c/g</i>. &sigma; is the sigmoid. slog and ssqrt keep the sign of their "
            "argument."
        ),
    ]
    if not search.finished:
        notes.insert(0, "The search is not finished. These are the best layers so far.")
    keys = [("leaf", "leaf"), ("moment", "aggregation"), ("card", "element-wise op")]
    cards = (_card(search, number, layer) for number, layer in enumerate(top))
    return section(
        "Top layers",
        *(element("p", note, css="note") for note in notes),
        legend((swatch(color), name) for color, name in keys),
        join(cards),
    )


def _card(search: Search, number: int, layer: ScoredLayer) -> Html:
    scores = " · ".join(f"{anchor} {percent(layer.scores.get(anchor))}" for anchor in search.anchors)
    facts = {
        "scores": element("span", scores, " · ", element("b", f"mean {percent(layer.mean_score)}")),
        "text": element("span", f"y = {layer.simplified}", css="text"),
        "as found": element("span", f"y = {layer.equation}", css="text"),
        "use": element("code", _use(search, layer)),
        "cost": cost.text(layer.graph),
    }
    if again := _reranked(search, layer):
        facts["fresh seeds"] = (
            f"{_spread(again.mean, again.deviation)}, number {again.proxy_rank} in the search"
        )
    if layer.simplified == layer.equation:
        del facts["as found"]
    if len(layer.members) > 1:
        facts["alike"] = _members(layer)
    return element(
        "article",
        element("h3", f"#{number} · {layer.title}", _PARETO_BADGE if layer.pareto else ""),
        _equation(layer),
        element("div", draw_graph(layer.graph), css="frame"),
        definitions(facts),
        lineage.section(search, layer),
    )


def _members(layer: ScoredLayer) -> str:
    """The other candidates of the layer's cluster."""
    others = layer.members[1:]
    named = ", ".join(map(str, others[:_MOST_ALIKE]))
    rest = len(others) - _MOST_ALIKE
    return f"candidate{'s' if len(others) > 1 else ''} {named}{f' and {rest} more' if rest > 0 else ''}"


def _use(search: Search, layer: ScoredLayer) -> str:
    """The call that builds the layer."""
    if layer.index in search.saved:  # in the order of the re-ranking, if there was one
        return f'norm_act("top_layers.json#{search.saved.index(layer.index)}")'
    return f"norm_act(Graph.parse({json.dumps(layer.equation)}))"  # it is not in the file yet


# -- Settings


def settings(config: Mapping[str, Any]) -> Html:
    """The config: a list of its own values, then a list for each group."""
    groups = {"search": {key: value for key, value in config.items() if not isinstance(value, Mapping)}}
    groups |= {key: value for key, value in config.items() if isinstance(value, Mapping)}
    lists = [
        element(
            "div", element("h3", name), definitions({key: _setting(value) for key, value in group.items()})
        )
        for name, group in groups.items()
    ]
    return section("Settings", element("div", *lists, css="settings"))


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_setting, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
