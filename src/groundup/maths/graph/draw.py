"""The computation graph as a picture.

    x, w = Tensor(2.0), Tensor(-3.0)
    y = (w * x).tanh()
    draw(y, names={"x": x, "w": w, "y": y})

Each tensor is a box: with round corners for leaves, a dashed border for constants, and operations
under their names, with arrows from what they were computed from. A box shows the numbers of a
tensor of up to 2 x 2, else its shape, and the gradient of the root by it, of large ones the norm.

The picture is plain SVG that loads nothing, for light and dark screens. `computation` finds what is
in it and `layout` decides where the boxes stand; `steps` goes through the graph as backpropagation
does.
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
    """A picture as text that needs no other file."""

    __slots__ = ()

    def save(self, path: str | Path) -> None:
        """Write the text to a file."""
        Path(path).write_text(self, encoding="utf-8")


class Drawing(Document):
    """An SVG picture; notebooks show it."""

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
    """Draw the graph that `root` was computed by, with values and gradients, as SVG.

    `names` says what tensors are called; other things and tensors in it are ignored, so that
    `locals()` will do. The gradients are those of `root`, or of the sum of its elements, and are
    computed for the picture: no `.grad` is touched and the tape stays. With a `step` of `steps`,
    its tensor and the edges in use are colored, and only what is known by then is shown.

    Raises `ValueError` for more than 400 nodes or a step of another graph, and `GradientError`
    where a backward has freed the tape or a value was changed in place.
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


# What stands in a box, and the room it needs

LETTER = 7.3  # pixels: a monospaced letter is 0.6 of the font's 12 wide, and a little air
ROW, MARGIN = 17.0, 10.0
LONGEST_NAME = 22


def _heading(graph: Graph, tensor: Tensor) -> tuple[str, str]:
    """The left and the right end of the first line."""
    name = graph.names.get(tensor.number)
    if not name:
        return kind_of(tensor), str(graph.place[tensor.number] + 1)
    if len(name) > LONGEST_NAME:  # the ends of "model.layers.0.self_attn.q_proj.weight" tell most
        name = f"{name[: LONGEST_NAME // 2 - 1]}…{name[-LONGEST_NAME // 2 :]}"
    return name, kind_of(tensor)


def _size(graph: Graph, tensor: Tensor, gradients: bool) -> tuple[float, float]:
    """Room for the longest numbers of such a tensor, so that all steps have the same picture."""
    rows = value_rows(tensor)
    longest = max(len(rows[0]), len("norm 1.235e-05"))
    if is_small(tensor):
        longest = 10 if not tensor.ndim else 12 * tensor.shape[-1] + 2 * (tensor.ndim - 1)
    left, right = _heading(graph, tensor)
    letters = max(_letters(left) + 2 + len(right), len("so far  ") + longest)
    count = 1 + len(rows) * (1 + (gradients and tensor.requires_grad))
    return letters * LETTER + 2 * MARGIN, count * ROW + MARGIN


def _letters(text: str) -> int:
    """A text's width in letters; Chinese ones and their like are two wide."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


# The picture


def placed(graph: Graph, gradients: bool) -> Placement:
    """Where the boxes and lines stand; with room for gradients, whether or not any is known yet."""
    sizes = [_size(graph, tensor, gradients) for tensor in graph.tensors]
    return layered(sizes, [edge for edge, _ in graph.edges()])


def svg(
    graph: Graph,
    layout: Placement,
    gradients: Mapping[int, Tensor],
    step: Step | None,
    style: str,
) -> str:
    """The whole picture, with colored edges above the others and boxes above all edges.

    `gradients` are those to show, by `Tensor.number`; `style` is an element of its own, or nothing
    where the page around the picture has the style sheet.
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
    """The class of a box, or of an edge into it."""
    if step is None or (not active and step.knows(tensor)):
        return "known"
    return step.direction if active else "ahead"


def _edge(line: Line, back: bool) -> str:
    """A line with an arrow head at the child, or at the parent where a gradient flows back."""
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
    """A box with its heading, its value and its gradient, as far as they are known."""
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
    """A text as XML; what XML cannot hold, or nobody can see, is replaced."""
    return escape(
        "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    )


# What it looks like, on light and dark screens: a style sheet

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
# Blue and orange that the color-blind can tell apart (Okabe and Ito 2008), made dark or light
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
""".replace(".graph", ".computation-graph")  # a name that no page around it has
