"""The table of a comparison, made of its results alone."""

from evonorms_jax.study.methods import METHODS
from evonorms_jax.study.results import Json

_DASH = "\N{EN DASH}"


def table(results: Json) -> tuple[list[str], list[list[str]]]:
    """The titles of the columns and the cells of the rows."""
    retraining = results["config"]["retraining"]
    header = [
        "layer",
        "search anchors, test %",
        f"{retraining['held_out_anchor']}, test %",
        "accepted / examined",
        "device minutes",
    ]
    rows = []
    for row in results["methods"]:
        costs = [_DASH, _DASH]
        if METHODS[row["name"]].rejection:
            costs = [f"{row['accepted']:.3g} / {row['examined']:.0f}", f"{row['device_minutes']:.1f}"]
        rows.append([row["title"], *(_cell(row, part) for part in ("searched", "held_out")), *costs])
    for row in results["known_layers"]:
        cells = [_percent(row[part]) for part in ("searched", "held_out")]
        rows.append([row["title"], *cells, _DASH, _DASH])
    return header, rows


def _cell(row: Json, part: str) -> str:
    """The accuracy of a method; a search that accepted no layer is named and is no number."""
    if row[part] is None:
        return f"none accepted in {row['examined']:.0f}"
    all_of_them = row[part]["number"] == len(row["runs"])
    note = "" if all_of_them else f" ({row[part]['number']} of {len(row['runs'])} searches)"
    return _percent(row[part]) + note


def _percent(summary: Json) -> str:
    deviation = "" if summary["deviation"] is None else f" ± {100 * summary['deviation']:.1f}"
    return f"{100 * summary['mean']:.1f}{deviation}"


def notes(results: Json) -> str:
    """What the numbers of the table are, in a paragraph."""
    config, hardware = results["config"], results["hardware"]
    retraining = config["retraining"]
    fresh = ", ".join(map(str, retraining["seeds"]))
    return (
        f"{config['name'].capitalize()}: {len(config['seeds'])} searches of each kind, {config['budget']} "
        "candidates each. "
        f"Layers are trained anew for {retraining['steps']} steps, with fresh seeds ({fresh}), and "
        "scored on test images that no search has seen; a training whose loss is not finite counts as 0. "
        "Mean ± sample standard deviation: of a method over its searches, each the mean over the fresh "
        "seeds; of a known layer over the fresh seeds. The rest are means over the searches. The first "
        "proposal of a random search is the layer of Random, the first that it accepts that of Random + "
        "rejection. In the figure, a thin line is a search, a thick one the mean of those that accepted any. "
        f"{hardware['devices']} device(s) of kind {hardware['device']}, {hardware['machine']}, "
        f"JAX {results['versions']['jax']}, {results['date'][:10]}."
    )


def markdown(results: Json) -> str:
    """The table and its notes for a README."""
    header, rows = table(results)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", notes(results), ""])
