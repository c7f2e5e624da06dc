"""Tables of numbers over seeds: one summary, and one form each as JSON, as Markdown and on a terminal."""

import functools
import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import rich.table
from etils import epath
from rich.console import Console

from evonorms_jax.errors import UserError
from evonorms_jax.evolution.history import sample_deviation
from evonorms_jax.runs.files import write_whole

Json = dict[str, Any]
DASH = "\N{EN DASH}"
#: Key of a result whose training was lost: its loss was not finite.
LOST = "lost"
_LONGEST, _WIDEST = 40, 8  # characters of a row's title, and columns, that a terminal shows beside each other


def summarize(values: Sequence[float]) -> Json | None:
    """Mean, sample deviation and number of the values. One value has no deviation."""
    if not values:
        return None
    mean, deviation = float(np.mean(values)), sample_deviation(values)
    return {"mean": mean, "deviation": deviation, "number": len(values)}


def paired_interval(
    values: Sequence[float], others: Sequence[float], level: float = 0.95, resamples: int = 10_000
) -> tuple[float, float]:
    """Interval of the mean difference of paired values, by the percentile bootstrap (Efron 1979).

    With few pairs it is too narrow: of three pairs it covers the true mean in about 3 cases of 4.

    Args:
      values: `[N]` values, such as one for each seed.
      others: `[N]` values for the same seeds.
      level: share of the bootstrap means inside the interval.
      resamples: number of bootstrap means, drawn with a fixed seed.

    Returns:
      The lower and the upper end.
    """
    differences = np.subtract(values, others)
    means = np.random.default_rng(0).choice(differences, (resamples, len(differences))).mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class Metric(NamedTuple):
    """A number that trainings report, and the way a table shows it over seeds.

    Attributes:
      title: name in headers and on axes.
      path: keys of the number in a result, joined by dots. An empty path gives 0.
      lost: value for a lost training. With None the statistic leaves it out, and the table counts it.
      statistic: "mean" with the deviation, "median", or "share", which is a mean without deviation.
      percent: whether to show the value times 100.
      digits: digits after the point.
    """

    title: str
    path: str
    lost: float | None = 0.0
    statistic: str = "mean"
    percent: bool = True
    digits: int = 1

    def value(self, result: Json) -> float | None:
        """The number in a result.

        Raises:
          ValueError: if the result has no such number.
        """
        if LOST in result:
            return self.lost
        try:
            return functools.reduce(operator.getitem, self.path.split("."), result) if self.path else 0.0
        except KeyError:
            raise UserError(f"a training has no {self.path}; its result has {', '.join(result)}") from None

    def entry(self, results: Mapping[int, Json | None]) -> Json:
        """Values by seed and their summary, from results by seed, where None is not finished yet."""
        values = {str(seed): result and self.value(result) for seed, result in results.items()}
        known = [value for value in values.values() if value is not None]
        entry: Json = {"by_seed": values, "summary": summarize(known)}
        if known and self.statistic == "median":
            entry["summary"] |= {"median": float(np.median(known)), "values": sorted(known)}
        lost = [str(seed) for seed, result in results.items() if result and LOST in result]
        return entry | {"lost": lost} if lost and self.lost is None else entry

    def center(self, summary: Json) -> float:
        """The mean or median of a summary."""
        return summary["median" if self.statistic == "median" else "mean"]

    def text(self, summary: Json) -> str:
        """A summary as text, such as "93.2 ± 0.7", or "4.0 [3.0, 4.0, 9.0]" for a median of all seeds."""

        def number(value):
            return f"{100 * value if self.percent else value:.{self.digits}f}"

        text = number(self.center(summary))
        if self.statistic == "mean" and summary["deviation"] is not None:
            text += f" ± {number(summary['deviation'])}"
        if self.statistic == "median" and summary["number"] > 1:
            text += f" [{', '.join(map(number, summary['values']))}]"
        return text

    def describe(self) -> str:
        """What the numbers are, for the notes below a table."""
        if self.statistic == "share":
            return "share of the trainings in %"
        over = {"mean": "mean ± sample standard deviation", "median": "median and all values"}
        fate = "is left out" if self.lost is None else f"counts as {self.lost:g}"
        unit = "in %, " if self.percent else ""
        return (
            f"{unit}{over[self.statistic]} over the seeds, where a training whose loss is not finite {fate}"
        )


def describe_metrics(metrics: Sequence[Metric]) -> list[str]:
    """A sentence for all metrics with the same unit and statistic."""
    titles: dict[str, list[str]] = {}
    for metric in metrics:
        titles.setdefault(metric.describe(), []).append(metric.title)
    return [f"{', '.join(names)}: {text}." for text, names in titles.items()]


def entry_text(metric: Metric, entry: Json) -> str:
    """The text of a table's cell, with the number of trainings that are lost or not finished."""
    lost = len(entry.get("lost", ()))
    missing = sum(value is None for value in entry["by_seed"].values()) - lost
    counts = [f"{number} {word}" for number, word in ((lost, "lost"), (missing, "to come")) if number]
    if entry["summary"] is None:
        return f"{DASH} ({counts[0]})" if lost else DASH
    return metric.text(entry["summary"]) + (f" ({', '.join(counts)})" if counts else "")


def hardware_text(hardware: Json) -> str:
    """The devices of a result, with the version of JAX."""
    kind = "{devices} device(s) of kind {device}, {machine}, JAX {jax}"
    return kind.format_map(hardware)


class Table(NamedTuple):
    """A table as text.

    Attributes:
      header: titles of the columns.
      rows: text of the cells. An equation in the first column has backticks.
      notes: a paragraph below.
      section: number of rows above a rule on a terminal, 0 without a rule.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: str
    section: int = 0

    def markdown(self) -> str:
        """The table and its notes for a page."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join([*("| " + " | ".join(line) + " |" for line in lines), "", self.notes, ""])

    def show(self, title: str) -> None:
        """Prints the table: a wide one turned, and long titles of rows below, so that all numbers fit."""
        lines = [[text.replace("_", " ") for text in self.header], *map(list, self.rows)]
        titles = [row[0].strip("`") for row in self.rows]
        numbered = any(len(text) > _LONGEST for text in titles)
        for number, line in enumerate(lines[1:], 1):
            line[0] = str(number) if numbered else line[0]
        section = self.section
        if len(self.header) > max(_WIDEST, len(self.rows)):
            lines, section = list(zip(*lines, strict=True)), 0
        shown = rich.table.Table(title=title)
        for text, width in zip(lines[0], _widths(lines, Console().width), strict=True):
            shown.add_column(text, width=width)
        for number, line in enumerate(lines[1:], 1):
            shown.add_row(*line, end_section=number == section)
        Console(width=10_000).print(shown)
        for number, text in enumerate(titles if numbered else (), 1):
            print(f"{number:2}. {text}")
        print(self.notes)


def _widths(lines: Sequence[Sequence[str]], total: int) -> list[int]:
    """Widths of columns that fit into a terminal, where rich would cut words, and so numbers."""
    columns = list(zip(*lines, strict=True))
    widths = [max(len(word) for text in column for word in text.split()) for column in columns]
    spare = total - sum(widths) - 3 * len(widths) - 1
    for place, column in enumerate(columns):
        grown = max(0, min(spare, max(map(len, column)) - widths[place]))
        widths[place] += grown
        spare -= grown
    return widths


def publish(workdir: epath.Path, name: str, results: Json, table: Table, figure: Any = None) -> None:
    """Writes the results as JSON, the table as Markdown and the figure as SVG and PNG, and prints the table.

    Args:
      workdir: folder of the files.
      name: name of the files without its ending.
      results: everything that the table and the figure show, with its `config`.
      table: table of the results.
      figure: figure of the results, of matplotlib.
    """
    write_whole(workdir / f"{name}.json", json.dumps(results, indent=1) + "\n")
    write_whole(workdir / f"{name}.md", table.markdown())
    kinds = ["json", "md"]
    if figure is not None:
        # Here, so that a ranking needs no matplotlib.
        from evonorms_jax.report.picture import as_file

        kinds += ["svg", "png"]
        for kind in kinds[2:]:
            write_whole(workdir / f"{name}.{kind}", as_file(figure, kind))
    table.show(results["config"]["name"])
    print(f"written to {workdir / name}.{', .'.join(kinds)}")
