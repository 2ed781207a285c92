"""What the drawn graphs look like, on light and dark screens: a style sheet."""

from string import Template

_COLOURS = Template("""
.graph .paper { fill: $paper }
.graph text { fill: $ink }
.graph .label, .graph .name { fill: $quiet }
.graph .name .label { fill: $ink }
.graph .slope { fill: $backward }
.graph .node rect, .graph .edge path { stroke: $line }
.graph .edge .head { fill: $line }
.graph .leaf { fill: $leaf }
.graph .constant { fill: $constant }
.graph .operation { fill: $operation }
.graph .ahead rect { fill: $paper }
.graph .ahead rect, .graph .ahead path { stroke: $faint }
.graph .ahead .head { fill: $faint }
.graph .forward rect, .graph .forward path { stroke: $forward }
.graph .forward .head { fill: $forward }
.graph .backward rect, .graph .backward path { stroke: $backward }
.graph .backward .head { fill: $backward }
""")
# Blue and orange that the colour-blind can tell apart (Okabe and Ito 2008), made dark or light
# enough to be read on each paper.
_LIGHT = {
    "paper": "#ffffff",
    "ink": "#1f2328",
    "quiet": "#59636e",
    "line": "#818b98",
    "faint": "#d1d9e0",
    "leaf": "#dcf5e0",
    "constant": "#eff2f5",
    "operation": "#e3f1fd",
    "forward": "#0069a8",
    "backward": "#b34700",
}
_DARK = {
    "paper": "#0d1117",
    "ink": "#f0f6fc",
    "quiet": "#a5b0bb",
    "line": "#7d8793",
    "faint": "#363d46",
    "leaf": "#12331c",
    "constant": "#22272e",
    "operation": "#10294a",
    "forward": "#56b4e9",
    "backward": "#ffa657",
}
STYLE = f"""
.graph {{ display: block }}
.graph text {{ font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace }}
.graph .name .label {{ font-weight: bold }}
.graph .constant {{ stroke-dasharray: 4 3 }}
.graph .edge path {{ fill: none; stroke-width: 1.3 }}
.graph .forward rect, .graph .forward path {{ stroke-width: 2.5 }}
.graph .backward rect, .graph .backward path {{ stroke-width: 2.5 }}
.graph .edge .head {{ stroke: none }}
{_COLOURS.substitute(_LIGHT)}@media (prefers-color-scheme: dark) {{
{_COLOURS.substitute(_DARK)}}}
""".replace(".graph", ".computation-graph")  # a name that no page around it has
