"""HTML elements of the page. Text is escaped, and `Html` is inserted unchanged."""

import html
from collections.abc import Iterable, Mapping, Sequence

#: Shown for a missing value.
DASH = "\N{EN DASH}"


class Html(str):
    """Text that is HTML already."""


def escape(value: object) -> Html:
    """The value as HTML: escaped, unless it is `Html`."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def breakable(name: str) -> Html:
    """The name as HTML that may be broken after each underscore."""
    return Html(escape(name).replace("_", "_<wbr>"))


# -- Elements


def element(tag: str, *children: object, css: str = "") -> Html:
    """`<tag class="css">children</tag>`."""
    attribute = f' class="{css}"' if css else ""
    return Html(f"<{tag}{attribute}>{''.join(escape(child) for child in children)}</{tag}>")


def join(parts: Iterable[object]) -> Html:
    """The parts, one on each line."""
    return Html("\n".join(escape(part) for part in parts))


def section(title: str, *children: object) -> Html:
    """A section of the page with a heading."""
    return element("section", element("h2", title), join(children))


def figure(pictures: Sequence[Html], caption: object) -> Html:
    """Pictures with a caption, side by side on a wide screen."""
    frames = join(element("div", picture, css="frame") for picture in pictures)
    return element("figure", element("div", frames, css="frames"), element("figcaption", caption))


def legend(keys: Iterable[tuple[Html, str]]) -> Html:
    """The keys of a figure: marks from `mark` or `swatch` with their meanings."""
    return element("div", *(element("span", symbol, text, css="key") for symbol, text in keys))


def mark(sign: str, color: str) -> Html:
    """A sign in a color of the theme."""
    return Html(f'<span style="color:var(--{color})">{escape(sign)}</span> ')


def swatch(color: str) -> Html:
    """A small square in a color of the theme."""
    return Html(f'<span class="swatch {color}"></span>')


def table(header: Sequence[object], rows: Sequence[tuple[str, Sequence[object]]], text_columns: int) -> Html:
    """A table that scrolls on a narrow screen.

    Args:
      header: titles of the columns.
      rows: CSS class, or "", and cells of each row.
      text_columns: number of columns, from the left, that hold text. The others hold numbers and are aligned
        right.
    """

    def line(tag: str, cells: Sequence[object], css: str = "") -> Html:
        kinds = ("" if place < text_columns else "number" for place in range(len(cells)))
        cells = (element(tag, cell, css=kind) for cell, kind in zip(cells, kinds, strict=True))
        return element("tr", Html("".join(cells)), css=css)

    head = element("thead", line("th", header))
    body = element("tbody", join(line("td", cells, css) for css, cells in rows))
    return element("div", element("table", head, body), css="scroll")


def definitions(entries: Mapping[str, object]) -> Html:
    """Names and their values, side by side."""
    pairs = ((element("dt", name), element("dd", value)) for name, value in entries.items())
    return element("dl", *(part for pair in pairs for part in pair))


# -- Numbers


def percent(share: float | None) -> str:
    """0.1234 as 12.3 %, and a dash for None."""
    return DASH if share is None else f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def points(difference: float) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float) -> str:
    """A time in at most two units: 4.2 s, 8 min 12 s, 3 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    if hours < 1:
        return f"{int(minutes)} min {int(seconds % 60)} s"
    return f"{int(hours)} h {int(minutes % 60)} min"
