"""Backpropagation step by step: a graph's values, then its gradients, each with a sentence.

    x, w = Tensor(2.0), Tensor(-3.0)
    y = w * x
    for step in steps(y, names={"x": x, "w": w, "y": y}):
        print(step.explanation)

    x is given: 2.
    w is given: -3.
    y is w · x = -3 · 2 = -6.
    y: the gradient starts as 1 and times ∂y/∂w = 2 goes to w (2)
       and times ∂y/∂x = -3 goes to x (-3).
    w: the gradient 2 is complete.
    x: the gradient -3 is complete.

`draw(y, step=step)` colors a step in the picture of the graph, and `animate` makes a page with all
these pictures. The page is plain HTML that loads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from string import Template
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from groundup.maths import ops
from groundup.maths.graph.computation import (
    Graph,
    Step,
    gradient_rows,
    is_small,
    kind_of,
    parents_of,
    short,
)
from groundup.maths.graph.draw import STYLE, Document, escaped, placed, svg
from groundup.maths.tensor import Tensor, no_grad

MAX_ANIMATED = 64  # two frames per node, each with all nodes: 5 MB for a chain, 12 with many edges


def steps(root: Tensor, *, names: Mapping[str, object] | None = None) -> Iterator[Step]:
    """Yield the steps that compute `root`, oldest tensor first, then its gradients, newest first.

    Arguments and errors are those of `draw`. Values are read, not computed again.
    """
    graph = Graph.below(root, names)
    none: Mapping[int, Tensor] = MappingProxyType({})
    for tensor in graph.tensors:
        yield Step("forward", tensor, kind_of(tensor), none, none, graph.computed(tensor))
    gradients: dict[int, Tensor] = {}
    for tensor, gradient in graph.gradients():
        gradients[tensor.number] = gradient
        shares, flows = _shares(graph, tensor, gradient), []
        for parent, share, how in shares.values():
            before = gradients.get(parent.number)
            gradients[parent.number] = share if before is None else before + share
            total = "" if before is None else f", together {_amount(gradients[parent.number])}"
            flows.append(f"{how} goes to {graph.label(parent)} ({_amount(share)}{total})".lstrip())
        yield Step(
            "backward",
            tensor,
            kind_of(tensor),
            MappingProxyType({operand: share.gradient for operand, share in shares.items()}),
            MappingProxyType(dict(gradients)),
            _backward_sentence(graph, tensor, gradient, flows),
        )


class Page(Document):
    """An HTML page, which notebooks display in a separate frame."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self)}" title="Backpropagation, step by step" '
            'style="width: 100%; height: 36em; border: 0"></iframe>'
        )


def animate(root: Tensor, *, names: Mapping[str, object] | None = None) -> Page:
    """Make an HTML page of all `steps`, with buttons or arrow keys to move between them.

    Arguments and errors are those of `draw`, with at most 64 nodes.
    """
    graph = Graph.below(root, names, MAX_ANIMATED)
    layout = placed(graph, gradients=True)
    turns = list(steps(root, names=names))
    frames = [
        f"<section{' hidden' if i else ''}>"
        f"<p><b>Step {i + 1} of {len(turns)}, {turn.direction}.</b> "
        f"{escaped(turn.explanation)}</p>\n"
        f"<figure>{svg(graph, layout, turn.gradients, turn, style='')}</figure></section>"
        for i, turn in enumerate(turns)
    ]
    return Page(PAGE.substitute(title=escaped(graph.title), style=STYLE, frames="\n".join(frames)))


class Share(NamedTuple):
    """The gradient that flows back to one parent, and a description of how it is computed."""

    parent: Tensor
    gradient: Tensor
    how: str


@no_grad()
def _shares(graph: Graph, tensor: Tensor, gradient: Tensor) -> dict[int, Share]:
    """Return the shares of a tensor's operands that require a gradient."""
    shares = {}
    rules = tensor.node.rules if tensor.node else ()
    for operand, (parent, rule) in enumerate(zip(parents_of(tensor), rules, strict=True)):
        if rule is None or not parent.requires_grad:
            continue
        with np.errstate(all="ignore"):
            whole = rule(gradient, tensor)
            slope = rule(tensor.new_ones(tensor.shape), tensor)
        if whole is gradient:
            how = ""
        elif tensor.ndim or parent.ndim:
            how = f"by the rule of {kind_of(tensor)}"
        else:
            labels = graph.label(tensor), graph.label(parent)
            y, x = (f"({label})" if " " in label else label for label in labels)
            how = f"times ∂{y}/∂{x} = {short(slope.data)}"
        if whole.shape != parent.shape:
            how += " summed over the broadcast dimensions"
        share = ops.sum_to(whole, parent.shape).to(parent.dtype)
        shares[operand] = Share(parent, share, how)
    return shares


def _backward_sentence(graph: Graph, tensor: Tensor, gradient: Tensor, flows: list[str]) -> str:
    """Return a backward step's sentence: "mul 3: the gradient 2 times … goes to x (-6)."."""
    amount = _amount(gradient) if is_small(gradient) else f"of {_amount(gradient)}"
    if tensor is graph.root:
        amount = f"starts as {_amount(gradient) if is_small(gradient) else 'ones'} and"
    return f"{graph.label(tensor)}: the gradient {amount} {' and '.join(flows) or 'is complete'}."


def _amount(gradient: Tensor) -> str:
    return " ".join(gradient_rows(gradient))


PAGE = Template(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>$title, step by step</title>
<style>
body { font: 16px/1.55 system-ui, sans-serif; margin: 0 auto; padding: 1.5rem 1rem }
body { max-width: 68rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; letter-spacing: -.01em }
@media (prefers-color-scheme: dark) { body { background: #15171a; color: #e4e6e9 } }
p { min-height: 3em; max-width: 60em }
figure { margin: 0; overflow-x: auto }
button { font: inherit; padding: 0.3em 1em }
$style</style>
<h1>$title</h1>
<nav>
<button id="back">← Previous</button>
<button id="on">Next →</button>
</nav>
<main aria-live="polite">
$frames
</main>
<script>
const frames = [...document.querySelectorAll("section")];
let now = 0;
function show(frame) {
  now = Math.max(0, Math.min(frame, frames.length - 1));
  frames.forEach((section, i) => { section.hidden = i !== now; });
  document.getElementById("back").disabled = now === 0;
  document.getElementById("on").disabled = now === frames.length - 1;
  frames[now].querySelector(".node.forward, .node.backward")
    .scrollIntoView({ block: "nearest", inline: "center" });
}
document.getElementById("back").onclick = () => show(now - 1);
document.getElementById("on").onclick = () => show(now + 1);
document.onkeydown = (event) => {
  const keys = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: frames.length - 1 };
  if (event.key in keys) { event.preventDefault(); show(keys[event.key]); }
};
show(0);
</script>
</html>
"""
)
