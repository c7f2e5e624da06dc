"""Colors and style sheet of the page, for light and dark screens.

Figures are drawn in the light colors, and `themed` replaces them by CSS variables of the page, so that one
picture serves both kinds of screen. For this every light color must be unique.
"""

from evonorms_jax.evolution.history import OUTCOMES

#: Light and dark color by name. The name of an outcome is the name of its color.
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
} | {name: (outcome.light, outcome.dark) for name, outcome in OUTCOMES.items()}


def light(name: str) -> str:
    """The color to draw with, which `themed` replaces."""
    return COLORS[name][0]


def themed(svg: str) -> str:
    """The picture with CSS variables in place of its colors."""
    for name, (color, _) in COLORS.items():
        svg = svg.replace(color, f"var(--{name})")
    return svg


def variables() -> str:
    """CSS definitions of the color variables."""
    first = "".join(f"--{name}:{color};" for name, (color, _) in COLORS.items())
    second = "".join(f"--{name}:{color};" for name, (_, color) in COLORS.items())
    return (
        f":root{{color-scheme:light dark;{first}}}\n@media (prefers-color-scheme:dark){{:root{{{second}}}}}\n"
    )


_RULES = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 20px 60px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:0 0 14px}
h3{font-size:1.02rem;margin:0;display:flex;flex-wrap:wrap;gap:8px;align-items:center}
p{margin:0 0 12px;max-width:72ch}
a{color:var(--accent)}
header p{max-width:none}
header p,footer,.note,figcaption,dt{color:var(--muted)}
.note,figcaption{font-size:.9rem}
section,article{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:22px 24px;
 margin:20px 0}
section section,article{margin:16px 0 0}
section>:last-child{margin-bottom:0}
code,.text{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
 font-size:.86em;overflow-wrap:anywhere}
code{background:var(--page);border:1px solid var(--line);border-radius:5px;padding:1px 6px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(138px,1fr));gap:12px;margin:20px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 12px}
.tile b{display:block;white-space:nowrap;font-size:1.2rem;line-height:1.25;font-variant-numeric:tabular-nums}
.tile span{display:block;color:var(--muted);font-size:.86rem;line-height:1.35;margin-top:3px}
.pair{display:flex;flex-wrap:wrap;gap:20px 48px;align-items:center}
.pair>*{min-width:0;max-width:100%}
.pair>.scroll{flex:1 1 420px}
.scroll,.frame{overflow-x:auto}
figure{margin:0}
figcaption{margin-top:10px}
figcaption>p{margin:4px 0 0;max-width:90ch}
figure+.scroll{margin-top:14px}
.scroll+.note{margin-top:12px}
.frames{display:flex;flex-wrap:wrap;gap:8px 4px;justify-content:space-around}
.frame{min-width:0}
svg{display:block;height:auto;max-width:100%;stroke-linejoin:round}
svg text{font-family:inherit!important}
.formula{overflow-x:auto;padding:10px 0 14px}
.formula svg{max-width:none}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th{color:var(--muted);font-weight:600;font-size:.84rem;text-align:left;vertical-align:bottom}
th,td{padding:7px 12px 7px 0;border-bottom:1px solid var(--line)}
td{vertical-align:top;min-width:11em}
td:first-child,td:has(.name){white-space:nowrap;min-width:0}
tbody tr:last-child td{border-bottom:0}
.number{text-align:right;min-width:0;padding:7px 0 7px 16px;white-space:nowrap;
 font-variant-numeric:tabular-nums}
th.number{white-space:normal;padding-left:10px}
.baseline td{background:var(--page)}
.name{white-space:nowrap}
td .text{display:block;min-width:14em}
th:last-child{min-width:6.2em}
.badge{font-size:.74rem;font-weight:600;border-radius:99px;padding:1px 9px;border:1px solid currentColor;
 color:var(--accepted)}
.key{display:inline-block;margin-right:14px}
.swatch.card{border:1px solid var(--muted)}
.swatch{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:6px;vertical-align:-1px}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:4px 14px;margin:12px 0 0}
dt,dd{margin:0}
dt{font-size:.9rem}
.settings{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));gap:22px 28px}
.settings dd{overflow-wrap:anywhere;font-size:.9rem}
details,dl+.note{margin-top:12px}
summary{cursor:pointer;color:var(--accent);font-size:.9rem}
.lineage{margin:8px 0 0;padding-left:1.4em}
.lineage li{margin:0 0 8px}
del{color:var(--diverged);text-decoration:line-through}
ins{color:var(--accepted);font-weight:600;text-decoration:none}
footer{font-size:.9rem}
@media (max-width:600px){
 main{padding:24px 12px 40px} section,article{padding:16px 14px} h1{font-size:1.5rem}
 dl{grid-template-columns:1fr;gap:0} dd{margin-bottom:8px}
}
"""


def css() -> str:
    """The style sheet."""
    swatches = "".join(f".swatch.{name}{{background:var(--{name})}}" for name in COLORS)
    return variables() + _RULES.strip() + "\n" + swatches
