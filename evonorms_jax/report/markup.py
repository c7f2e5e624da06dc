"""The few forms of HTML that the page is made of. Text is escaped; `Html` is taken as it is."""

import html
from collections.abc import Iterable, Mapping, Sequence

#: Stands where there is no value.
DASH = "\N{EN DASH}"


class Html(str):
    """Text that is HTML already."""


def escape(value: object) -> Html:
    """The value as HTML: escaped, unless it is `Html`."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def element(tag: str, *children: object, css: str = "") -> Html:
    """`<tag class="css">children</tag>`."""
    attribute = f' class="{css}"' if css else ""
    return Html(f"<{tag}{attribute}>{''.join(escape(child) for child in children)}</{tag}>")


def join(parts: Iterable[object]) -> Html:
    """The parts one after another, a line each."""
    return Html("\n".join(escape(part) for part in parts))


def section(title: str, *children: object) -> Html:
    """A part of the page with a heading."""
    return element("section", element("h2", title), join(children))


def figure(pictures: Sequence[Html], caption: object) -> Html:
    """Pictures side by side, as far as there is room, with a caption."""
    frames = join(element("div", picture, css="frame") for picture in pictures)
    return element("figure", element("div", frames, css="frames"), element("figcaption", caption))


def table(header: Sequence[object], rows: Sequence[tuple[str, Sequence[object]]], text_columns: int) -> Html:
    """A table that scrolls on a narrow screen.

    Args:
      header: of the columns.
      rows: a CSS class, or "", and the cells of each row.
      text_columns: how many columns, from the left, are text; the rest are numbers, aligned right.
    """

    def line(tag: str, cells: Sequence[object], css: str = "") -> Html:
        kinds = ("" if place < text_columns else "number" for place in range(len(cells)))
        cells = (element(tag, cell, css=kind) for cell, kind in zip(cells, kinds, strict=True))
        return element("tr", Html("".join(cells)), css=css)

    head = element("thead", line("th", header))
    body = element("tbody", join(line("td", cells, css) for css, cells in rows))
    return element("div", element("table", head, body), css="scroll")


def definitions(entries: Mapping[str, object]) -> Html:
    """Names with their values, side by side."""
    pairs = ((element("dt", name), element("dd", value)) for name, value in entries.items())
    return element("dl", *(part for pair in pairs for part in pair))


def percent(share: float | None) -> str:
    """0.1234 as 12.3 %, and a dash for None."""
    return DASH if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def points(difference: float) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """Two units at most: 4.2 s, 8 min 12 s, 3 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    if hours < 1:
        return f"{int(minutes)} min {int(seconds % 60)} s"
    return f"{int(hours)} h {int(minutes % 60)} min"
