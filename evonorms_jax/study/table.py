"""Tables of numbers over seeds: one summary, and one form each as JSON, as Markdown and on a terminal."""

import functools
import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import rich.table
from etils import epath
from rich.console import Console

from evonorms_jax.runs.workdir import write_whole

Json = dict[str, Any]
DASH = "\N{EN DASH}"
#: Key of a result whose training was lost: its loss was not finite.
LOST = "lost"
_LONGEST, _WIDEST = 40, 8  # characters of a row's title, and columns, that a terminal shows beside each other


def summarize(values: Sequence[float]) -> Json | None:
    """Mean, sample standard deviation (None for a single value) and number; None if there is no value."""
    if not values:
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation, "number": len(values)}


class Metric(NamedTuple):
    """A number that trainings report, and the way a table shows it over seeds.

    Attributes:
      title: name in headers and on axes.
      path: keys of the number in a result, joined by dots; "" stands for 0.
      lost: value for a lost training; None leaves it out of the statistic, and the table counts it.
      statistic: "mean" (with the deviation), "median", or "share" (a mean without deviation).
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
            raise ValueError(f"a training has no {self.path}; its result has {', '.join(result)}") from None

    def entry(self, results: Mapping[int, Json | None]) -> Json:
        """Values by seed and their summary, from results by seed; None is a training that is not finished."""
        values = {str(seed): result and self.value(result) for seed, result in results.items()}
        known = [value for value in values.values() if value is not None]
        entry: Json = {"by_seed": values, "summary": summarize(known)}
        if known and self.statistic == "median":
            entry["summary"]["median"] = float(np.median(known))
        lost = [str(seed) for seed, result in results.items() if result and LOST in result]
        return entry | {"lost": lost} if lost and self.lost is None else entry

    def center(self, summary: Json) -> float:
        """The mean or median of a summary."""
        return summary["median" if self.statistic == "median" else "mean"]

    def text(self, summary: Json) -> str:
        """A summary as text, such as "93.2 ± 0.7"."""
        shown = [self.center(summary)]
        if self.statistic == "mean" and summary["deviation"] is not None:
            shown.append(summary["deviation"])
        return " ± ".join(f"{100 * value if self.percent else value:.{self.digits}f}" for value in shown)

    def describe(self) -> str:
        """The name, unit and statistic for the notes below a table."""
        over = {"mean": "mean ± sample standard deviation", "median": "median", "share": "share"}
        fate = "is left out" if self.lost is None else f"counts as {self.lost:g}"
        return (
            f"{self.title}{' in %' if self.percent else ''}, {over[self.statistic]} over the seeds, where a "
            f"training whose loss is not finite {fate}"
        )


def entry_text(metric: Metric, entry: Json) -> str:
    """The text of a table's cell; trainings that are lost or not finished are counted beside the numbers."""
    lost = len(entry.get("lost", ()))
    missing = sum(value is None for value in entry["by_seed"].values()) - lost
    counts = [f"{number} {word}" for number, word in ((lost, "lost"), (missing, "to come")) if number]
    if entry["summary"] is None:
        return f"{DASH} ({counts[0]})" if lost else DASH
    return metric.text(entry["summary"]) + (f" ({', '.join(counts)})" if counts else "")


class Table(NamedTuple):
    """A table as text.

    Attributes:
      header: titles of the columns.
      rows: text of the cells; an equation in the first column has backticks.
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
        shown = rich.table.Table(*lines[0], title=title)
        shown.columns[0].no_wrap = True
        for number, line in enumerate(lines[1:], 1):
            shown.add_row(*line, end_section=number == section)
        Console().print(shown)
        for number, text in enumerate(titles if numbered else (), 1):
            print(f"{number:2}. {text}")
        print(self.notes)


def write(
    workdir: epath.Path, name: str, results: Json, table: Table, render: Callable[[Json, str], bytes] | None
) -> str:
    """Writes the results as JSON, the table as Markdown and the figure as SVG and PNG.

    Args:
      workdir: folder of the files.
      name: name of the files without its ending.
      results: everything that the table and the figure show.
      table: table of the results.
      render: function that draws the results as a file of a kind, "svg" or "png"; None without a figure.

    Returns:
      A line that names the files.
    """
    write_whole(workdir / f"{name}.json", json.dumps(results, indent=1) + "\n")
    write_whole(workdir / f"{name}.md", table.markdown())
    kinds = () if render is None else ("svg", "png")
    for kind in kinds:
        (workdir / f"{name}.{kind}").write_bytes(render(results, kind))
    return f"written to {workdir / name}" + ", ".join([".json", ".md", *(f".{kind}" for kind in kinds)])
