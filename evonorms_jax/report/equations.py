"""Equations typeset with matplotlib's mathtext: no TeX is needed."""

import re

from matplotlib.mathtext import MathTextParser

from evonorms_jax.report.markup import Html
from evonorms_jax.report.picture import canvas, inline, styled_math
from evonorms_jax.search_space import Graph

# Repeated sub-expressions are written out in LaTeX, so that it can be far longer than the text; beyond this
# nobody reads it.
_LONGEST = 400
_PARSER = MathTextParser("path")
# Delimiters around something flat; mathtext sets stretched ones too small there.
_FLAT = re.compile(r"\\left([(|])((?:(?!\\left|\\right|\\frac).)*)\\right([)|])")


@styled_math
def typeset(graph: Graph, size: float = 18) -> Html | None:
    """The equation `y = ...` as a picture; None if it is too long or mathtext cannot read it."""
    latex = graph.latex()
    if len(latex) > _LONGEST:
        return None
    while _FLAT.search(latex):
        latex = _FLAT.sub(r"\1\2\3", latex)
    formula = f"$y = {latex}$".replace(r"\frac", r"\dfrac", 1)  # the outermost one, in full size
    try:
        _PARSER.parse(formula)
    except ValueError:
        return None
    figure = canvas(10, 10)
    figure.text(0, 0, formula, size=size)
    return inline(figure, f"y = {graph}", bbox_inches="tight", pad_inches=0.03)
