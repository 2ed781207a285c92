"""The computation graph as a picture.

    x, w = Tensor(2.0), Tensor(-3.0)
    y = (w * x).tanh()
    draw(y, names={"x": x, "w": w, "y": y})

Each tensor is a box: leaves have round corners, constants a dashed border, and operations arrows
from their operands. A box shows the numbers of a tensor of up to 2 x 2, or else its shape, and the
gradient of the root with respect to it, for large tensors its norm.

The picture is plain SVG that loads nothing, for light and dark screens. `computation` collects its
contents and `layout` positions the boxes; `steps` goes through the graph in the order of
backpropagation.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from unicodedata import east_asian_width

from groundup.maths.graph.computation import (
    Graph,
    Step,
    gradient_rows,
    is_small,
    kind_of,
    value_rows,
)
from groundup.maths.graph.layout import Box, Line, Placement, layered
from groundup.maths.tensor import Tensor


class Document(str):
    """A self-contained picture as text."""

    __slots__ = ()

    def save(self, path: str | Path) -> None:
        """Write the text to a file."""
        Path(path).write_text(self, encoding="utf-8")


class Drawing(Document):
    """An SVG picture, which notebooks display."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


def draw(
    root: Tensor,
    *,
    names: Mapping[str, object] | None = None,
    gradients: bool = True,
    step: Step | None = None,
) -> Drawing:
    """Draw the computation graph of `root`, with values and gradients, as SVG.

    `names` maps names to tensors; other entries are ignored, so `locals()` works. The gradients are
    those of `root`, or of the sum of its elements, and are computed for the picture: no `.grad`
    changes and the tape is kept. With a `step` of `steps`, its tensor and the edges in use are
    colored, and only the values known in that step are shown.

    Raises `ValueError` for more than 400 nodes or a step of another graph, and `GradientError`
    if a backward has freed the tape or a value was changed in place.
    """
    graph = Graph.below(root, names)
    if step and step.tensor.number not in graph.place:
        raise ValueError(
            "the step's tensor is not in this graph; draw the one that steps() was called with"
        )
    found: Mapping[int, Tensor] = {}
    if gradients:
        found = step.gradients if step else {t.number: g for t, g in graph.gradients()}
    style = f"<style>{STYLE}</style>"
    return Drawing(svg(graph, placed(graph, gradients), found, step, style))


# The content of a box, and its size

LETTER = 7.3  # pixels: a monospaced character is 0.6 of the font's 12 wide, plus some spacing
ROW, MARGIN = 17.0, 10.0
LONGEST_NAME = 22


def _heading(graph: Graph, tensor: Tensor) -> tuple[str, str]:
    """Return the left and right parts of the first line."""
    name = graph.names.get(tensor.number)
    if not name:
        return kind_of(tensor), str(graph.place[tensor.number] + 1)
    if len(name) > LONGEST_NAME:  # keep both ends of "model.layers.0.self_attn.q_proj.weight"
        name = f"{name[: LONGEST_NAME // 2 - 1]}…{name[-LONGEST_NAME // 2 :]}"
    return name, kind_of(tensor)


def _size(graph: Graph, tensor: Tensor, gradients: bool) -> tuple[float, float]:
    """Return a size that fits the longest possible numbers, so that all steps have one layout."""
    rows = value_rows(tensor)
    longest = max(len(rows[0]), len("norm 1.235e-05"))
    if is_small(tensor):
        longest = 10 if not tensor.ndim else 12 * tensor.shape[-1] + 2 * (tensor.ndim - 1)
    left, right = _heading(graph, tensor)
    letters = max(_letters(left) + 2 + len(right), len("so far  ") + longest)
    count = 1 + len(rows) * (1 + (gradients and tensor.requires_grad))
    return letters * LETTER + 2 * MARGIN, count * ROW + MARGIN


def _letters(text: str) -> int:
    """Return a text's width in characters; East Asian wide characters count two."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


# The picture


def placed(graph: Graph, gradients: bool) -> Placement:
    """Return the layout; with `gradients`, boxes have room for them even before they are known."""
    sizes = [_size(graph, tensor, gradients) for tensor in graph.tensors]
    return layered(sizes, [edge for edge, _ in graph.edges()])


def svg(
    graph: Graph,
    layout: Placement,
    gradients: Mapping[int, Tensor],
    step: Step | None,
    style: str,
) -> str:
    """Return the whole picture, with colored edges above the others and boxes above all edges.

    `gradients` are those to show, by `Tensor.number`. `style` is a style element, or empty if the
    surrounding page has the style sheet.
    """
    quiet: list[str] = []
    colored: list[str] = []
    for ((parent, child), operand), line in zip(graph.edges(), layout.lines, strict=True):
        tensor = graph.tensors[child]
        look = _look(step, tensor, bool(step and step.uses(tensor, operand)))
        (colored if look in ("forward", "backward") else quiet).append(
            f'<g class="edge {look}" data-edge="{parent} {child} {operand}">'
            f"{_edge(line, look == 'backward')}</g>"
        )
    nodes = [
        f'<g class="node {_look(step, tensor, bool(step and tensor is step.tensor))}" '
        f'data-node="{i}" transform="translate({box.x:.1f} {box.y:.1f})">'
        f"{_node(graph, tensor, box, gradients.get(tensor.number), step)}</g>"
        for i, (tensor, box) in enumerate(zip(graph.tensors, layout.boxes, strict=True))
    ]
    words = [step.explanation] if step else [graph.computed(tensor) for tensor in graph.tensors]
    width, height = layout.width + 2 * MARGIN, layout.height + 2 * MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="computation-graph" role="img" '
            f'width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="{-MARGIN} {-MARGIN} {width:.1f} {height:.1f}">',
            f"<title>{escaped(graph.title)}</title>",
            f"<desc>{escaped(' '.join(words))}</desc>",
            style,
            f'<rect class="paper" x="{-MARGIN}" y="{-MARGIN}" width="100%" height="100%"/>',
            *quiet,
            *colored,
            *nodes,
            "</svg>",
        ]
    )


def _look(step: Step | None, tensor: Tensor, active: bool) -> str:
    """Return the CSS class of a box, or of an edge into it."""
    if step is None or (not active and step.knows(tensor)):
        return "known"
    return step.direction if active else "ahead"


def _edge(line: Line, back: bool) -> str:
    """Return a line with an arrow head at the child, or at the parent if a gradient flows back."""
    start, turn, end = line
    middle = (turn.x + end.x) / 2
    path = (
        f"M{start.x:.1f} {start.y:.1f} H{turn.x:.1f} "
        f"C{middle:.1f} {turn.y:.1f} {middle:.1f} {end.y:.1f} {end.x:.1f} {end.y:.1f}"
    )
    tip, length = (start, 8) if back else (end, -8)
    return (
        f'<path d="{path}"/><path class="head" d="M{tip.x:.1f} {tip.y:.1f} l{length} -4.5 v9 z"/>'
    )


def _node(
    graph: Graph, tensor: Tensor, box: Box, gradient: Tensor | None, step: Step | None
) -> str:
    """Return a box with its heading, and its value and gradient if known."""
    kind = "operation" if tensor.node else kind_of(tensor)
    radius = 14 if kind == "leaf" else 4
    left, right = _heading(graph, tensor)
    rows = [("name", left, right)]
    if step is None or step.knows(tensor):
        label = "value" if is_small(tensor) else "shape"
        rows += [("value", label * (not i), row) for i, row in enumerate(value_rows(tensor))]
    if gradient is not None:
        label = "so far" if step and tensor.number < step.tensor.number else "grad"
        rows += [("slope", label * (not i), row) for i, row in enumerate(gradient_rows(gradient))]
    texts = [
        f'<text class="{look}" y="{ROW * (i + 1):.0f}"><tspan class="label" x="{MARGIN:.0f}">'
        f'{escaped(label)}</tspan><tspan x="{box.width - MARGIN:.1f}" text-anchor="end">'
        f"{escaped(row)}</tspan></text>"
        for i, (look, label, row) in enumerate(rows)
    ]
    computed = f" = {graph.formula(tensor)}" if tensor.node else ""
    about = f"{graph.label(tensor)}{computed}, {tensor.dtype} of shape {tensor.shape}"
    return (
        f"<title>{escaped(about)}</title>"
        f'<rect class="{kind}" width="{box.width:.1f}" height="{box.height:.1f}" rx="{radius}"/>'
        + "".join(texts)
    )


def escaped(text: str) -> str:
    """Escape a text as XML; unprintable characters are replaced."""
    return escape(
        "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    )


# The style sheet, for light and dark screens

_COLORS = Template("""
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
# Blue and orange that are distinguishable with color blindness (Okabe and Ito 2008), dark or light
# enough to be readable on each background.
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
    "paper": "#15171a",
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
{_COLORS.substitute(_LIGHT)}@media (prefers-color-scheme: dark) {{
{_COLORS.substitute(_DARK)}}}
""".replace(".graph", ".computation-graph")  # a class name that no surrounding page uses
