"""The lineage of a layer: its ancestors, and the change of each step, as text and as HTML."""

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from evonorms_jax.evolution.history import OUTCOMES, History, Record
from evonorms_jax.evolution.records import ScoredLayer, Search
from evonorms_jax.report.markup import Html, element, join, percent
from evonorms_jax.search_space import LEAVES, Graph
from evonorms_jax.search_space.simplify import readable

#: Number of steps of a lineage that are shown, the last ones if there are more.
MOST_STEPS = 20
_TOKEN = re.compile(r"\s*(?:\w+(?:/g)?|[^\w\s])")
_ARROW = "\N{RIGHTWARDS ARROW}"


class Step(NamedTuple):
    """A member of a lineage.

    Attributes:
      record: candidate.
      pieces: its simplified equation beside its parent's, as pairs of a sign, " " for both, "-" for the
        parent alone and "+" for this one alone, and the text.
      nodes: changed nodes, such as "node 7: v1 * 4 -> std_wh(x)", dead ones marked.
    """

    record: Record
    pieces: list[tuple[str, str]]
    nodes: list[str]


def lineage(history: History, index: int) -> list[Step]:
    """The ancestors of a candidate from the first one to itself. A candidate without parents is alone."""
    records = [history[index]]
    while records[-1].proposal.parents:
        records.append(history[records[-1].proposal.parents[0]])
    records.reverse()
    equations = [readable(record.graph) for record in records]
    steps = [Step(records[0], [(" ", equations[0])], [])]
    for place in range(1, len(records)):
        parent, child = records[place - 1 : place + 1]
        pieces = difference(equations[place - 1], equations[place])
        steps.append(Step(child, pieces, changed_nodes(parent.graph, child.graph)))
    return steps


def difference(old: str, new: str) -> list[tuple[str, str]]:
    """Pieces of two equations in order, as in `Step.pieces`: without the "+" they are the old one."""
    first, second = _TOKEN.findall(old), _TOKEN.findall(new)
    pieces = []
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            pieces.append((" ", "".join(first[a:b])))
            continue
        pieces += [("-", "".join(first[a:b]))] if b > a else []
        pieces += [("+", "".join(second[c:d]))] if d > c else []
    return pieces


def changed_nodes(parent: Graph, child: Graph) -> list[str]:
    """The nodes that differ, one text each."""
    live, lived = set(child.live_nodes), set(parent.live_nodes)
    changes = []
    for place, (old, new) in enumerate(zip(parent.nodes, child.nodes, strict=False), len(LEAVES)):
        if old != new:
            dead = "" if place in live | lived else " (dead)"
            changes.append(f"node {place}: {_describe(old)} -> {_describe(new)}{dead}")
    return changes


def _describe(node) -> str:
    inputs = (LEAVES[i] if i < len(LEAVES) else str(i) for i in node.inputs)
    return f"{node.op}({', '.join(inputs)})"


def _shown(steps: Sequence[Step]) -> tuple[list[Step], int]:
    """The steps to show, without those that leave the function as it is, and the number of those left out."""
    changed = [step for step in steps if any(sign != " " for sign, _ in step.pieces)]
    kept = [steps[0], *changed] if steps[0] not in changed else changed
    kept = kept[-MOST_STEPS:]
    kept += [] if kept[-1] is steps[-1] else [steps[-1]]
    return kept, len(steps) - len(kept)


def _result(record: Record) -> str:
    if record.selectable:
        return f"mean {percent(record.mean_score)}"
    return OUTCOMES[record.evaluation.outcome].title


# -- Text


def describe(search: Search, top: Sequence[ScoredLayer]) -> str:
    """The lineages of layers as text, one after the other, with `{-old-}` and `{+new+}` in equations."""
    return "\n".join(line for number, layer in enumerate(top) for line in _lines(search, number, layer))


def _lines(search: Search, number: int, layer: ScoredLayer) -> Iterator[str]:
    steps, left_out = _shown(lineage(search.history, layer.index))
    alike = f", {len(layer.members) - 1} more alike" if len(layer.members) > 1 else ""
    result = _plain(_result(search.history[layer.index]))
    yield f"#{number} {layer.simplified}  ({layer.title}, {result}{alike})"
    for step in steps:
        record = step.record
        marked = "".join(text if sign == " " else f"{{{sign}{text}{sign}}}" for sign, text in step.pieces)
        yield f"    {record.index:>7} {record.proposal.origin:<8} {_plain(_result(record)):<14} {marked}"
        for change in step.nodes:
            yield f"{'':>33}{change}"
    if left_out:
        yield f"    not shown: {_left_out(left_out)}"


def _left_out(count: int) -> str:
    return f"{count} step{'s' if count > 1 else ''}, older or without a change of the function"


def _plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


# -- HTML


def section(search: Search, layer: ScoredLayer) -> Html:
    """The lineage of a layer as a list that opens on a click."""
    steps, left_out = _shown(lineage(search.history, layer.index))
    if len(steps) == 1:
        return element("p", f"No parents: {steps[0].record.proposal.origin}.", css="note")
    rows = [element("li", *_step(step)) for step in steps]
    title = f"Lineage: {len(steps) + left_out} candidates from candidate {steps[0].record.index} on"
    parts = [element("summary", title), element("ol", *rows, css="lineage")]
    parts += [element("p", f"Not shown: {_left_out(left_out)}.", css="note")] if left_out else []
    return element("details", join(parts))


def _step(step: Step) -> Iterator[Html]:
    record = step.record
    tags = {" ": "span", "-": "del", "+": "ins"}
    head = f"candidate {record.index}, {record.proposal.origin}, {_result(record)}"
    yield element("div", head, css="note")
    yield element("div", *(element(tags[sign], text) for sign, text in step.pieces), css="text")
    if step.nodes:
        yield element("div", "; ".join(step.nodes).replace("->", _ARROW), css="note text")
