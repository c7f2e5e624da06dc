"""The colours of the page and its figures, for light and for dark screens.

Figures are drawn in the light colours, and `themed` puts the page's CSS variables in their place: one picture
serves both. So every light colour must be a different one.
"""

#: Light and dark colour by name. An outcome has the colour of its name.
COLORS: dict[str, tuple[str, str]] = {
    "page": ("#f5f6f8", "#101418"),
    "card": ("#fefefe", "#191f25"),
    "ink": ("#1b2631", "#e4e9ee"),
    "muted": ("#5c6975", "#9ba8b4"),
    "line": ("#dde2e7", "#323b44"),
    "accent": ("#1f5fae", "#80b3f4"),
    "dead": ("#84909c", "#74808b"),
    "leaf": ("#dce9f8", "#1f3a59"),
    "moment": ("#fbecd0", "#52401c"),
    "inert": ("#a3adb8", "#66717d"),
    "duplicate": ("#6f86a8", "#8499ba"),
    "batch_dependent": ("#9068b8", "#b48fdb"),
    "unstable": ("#d97a2b", "#e8944b"),
    "low_quality": ("#d8b02e", "#dcb945"),
    "diverged": ("#bf4040", "#e06c67"),
    "accepted": ("#1d8763", "#45b78f"),
}


def light(name: str) -> str:
    """The colour to draw with; `themed` finds it again."""
    return COLORS[name][0]


def themed(svg: str) -> str:
    """The picture with the page's variables for its colours."""
    for name, (color, _) in COLORS.items():
        svg = svg.replace(color, f"var(--{name})")
    return svg


def variables() -> str:
    """The CSS that gives the variables their values."""
    first = "".join(f"--{name}:{color};" for name, (color, _) in COLORS.items())
    second = "".join(f"--{name}:{color};" for name, (_, color) in COLORS.items())
    return (
        f":root{{color-scheme:light dark;{first}}}\n@media (prefers-color-scheme:dark){{:root{{{second}}}}}\n"
    )
