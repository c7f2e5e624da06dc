"""An examination as lines of text for people."""

from collections.abc import Iterator

from evonorms_jax.evolution.history import OUTCOMES, evidence_text, percent_text
from evonorms_jax.evolution.records import layer_title
from evonorms_jax.search_space.probes import ALIKE
from evonorms_jax.study.table import DASH, Json

_EQUAL = 1e-6  # relative difference of outputs that are the same up to rounding


def block(number: int, row: Json) -> str:
    """The lines of a layer, the first one with its number and text."""
    if "error" in row:
        return "\n".join([f"{number}  {row['name']}", f"   error: {row['error']}"])
    facts = [("simplified", row["simplified"]), ("nearest", _nearest(row["nearest"])), *_verdict(row)]
    facts += [*_curves(row), ("cost", _cost(row)), ("time", f"{row['seconds']:.1f} s")]
    return "\n".join([f"{number}  {row['name']}", *(f"   {name:<11} {text}" for name, text in facts)])


def _nearest(nearest: Json) -> str:
    if nearest["difference"] is None:
        return f"{DASH}, the output is not finite"
    title, distance = layer_title(nearest["name"]), nearest["difference"]
    if distance < _EQUAL:
        return f"{title}, the same function"
    words = "alike, " if distance <= ALIKE else ""
    return f"{title}, {words}outputs differ by {100 * distance:.3g} %"


def _verdict(row: Json) -> Iterator[tuple[str, str]]:
    outcome = OUTCOMES[row["outcome"]]
    rejected = f"rejected as {outcome.title}: {evidence_text(row['evidence'])}"
    words = "accepted" if row["outcome"] == "accepted" else rejected
    yield "verdict", words + (", uses statistics of the batch" if row["batch_dependent"] else "")
    if "stability" in row:
        norm, steps = row["stability"]["norm"], row["stability"]["steps"]
        largest = "is not finite" if norm is None else f"{norm:.3g}"
        yield "stability", f"largest gradient norm {largest} in {steps} steps of ascent"


def _curves(row: Json) -> Iterator[tuple[str, str]]:
    if "curves" not in row:
        return
    width = max(map(len, row["curves"]))
    seeds = len(next(iter(row["curves"].values())))
    yield "accuracy %", f"{'after steps':<{width}} " + "".join(f"{step:>14}" for step in row["steps"])
    for name, scores in row["curves"].items():
        cells = (_cell([seed[column] for seed in scores]) for column in range(len(row["steps"])))
        yield "", f"{name:<{width}} " + "".join(f"{cell:>14}" for cell in cells)
    score = percent_text(row["mean"], row["deviation"])
    yield "score", f"{score} % over {seeds} seed{'s' if seeds > 1 else ''}"


def _cell(values: list[float]) -> str:
    from_least = f"{100 * min(values):.1f}-{100 * max(values):.1f}"
    return f"{100 * values[0]:.1f}" if len(values) == 1 else from_least


def _cost(row: Json) -> str:
    cost = row["cost"]
    return (
        f"{cost['passes']} passes over x ({cost['forward']} forward, {cost['backward']} backward), "
        f"{cost['bytes_per_element']} bytes a number in float32, {cost['inference']} passes at inference, "
        f"{cost['statistics']} statistics, {cost['operations']} element-wise ops; a channel has "
        f"{cost['parameters']} parameters and {cost['state']} moving statistics"
    )
