"""Graphs to draw, and the nodes and edges of a drawing, read back from its SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
from hypothesis import strategies as st

from groundup.maths import Tensor

SVG = "{http://www.w3.org/2000/svg}"


def neuron() -> tuple[Tensor, dict[str, Tensor]]:
    """The neuron of micrograd's lecture with known gradients: tanh(w1 x1 + w2 x2 + b)."""
    named = {"x1": 2.0, "x2": 0.0, "w1": -3.0, "w2": 1.0, "b": 6.8813735870195432}
    t = {name: Tensor(value) for name, value in named.items()}
    y = (t["x1"] * t["w1"] + t["x2"] * t["w2"] + t["b"]).tanh()
    return y, {**t, "y": y}


def network() -> tuple[Tensor, dict[str, Tensor]]:
    """A loss over arrays, with broadcasting, a shared weight and constants."""
    draws = np.random.default_rng(0)
    x = Tensor(draws.normal(size=(4, 3)), requires_grad=False)
    w, b, v = (Tensor(draws.normal(size=shape)) for shape in ((3, 5), (5,), (5, 1)))
    loss = (((x @ w + b).tanh() @ v) ** 2).mean() + 0.01 * (w**2).sum()
    return loss, {"x": x, "w": w, "b": b, "v": v, "loss": loss}


def random_graph(choices: list[int]) -> Tensor:
    """A graph in which each operation takes any two earlier tensors, possibly the same twice."""
    made = [Tensor(0.5), Tensor(-1.5)]
    for choice in choices:
        a, b = made[choice % len(made)], made[choice // 7 % len(made)]
        made.append([a + b, a * b, a - b, a.tanh(), b.sin() * 2.0][choice % 5])
    return sum(made[1:], made[0])


def chain(length: int) -> Tensor:
    """A chain of `length` operations."""
    y = Tensor(1.0)
    for _ in range(length):
        y = y.sin()
    return y


choices = st.lists(st.integers(0, 10_000), max_size=25)


def ancestors(root: Tensor) -> list[Tensor]:
    """All tensors of the graph, oldest first, found by recursion."""

    def visit(tensor: Tensor) -> dict[int, Tensor]:
        found = {tensor.number: tensor}
        for parent in tensor.node.parents if tensor.node else ():
            found |= visit(parent)
        return found

    return [tensor for _, tensor in sorted(visit(root).items())]


def groups(svg: str, attribute: str) -> dict[str, ElementTree.Element]:
    """The groups of nodes or edges by id; each id must be unique."""
    found = [g for g in ElementTree.fromstring(svg).iter(f"{SVG}g") if attribute in g.attrib]
    assert len({g.get(attribute) for g in found}) == len(found)
    return {g.attrib[attribute]: g for g in found}


def rows(node: ElementTree.Element) -> list[list[str]]:
    """The lines of a box, each as its two texts."""
    return [[span.text or "" for span in text] for text in node.findall(f"{SVG}text")]


def box(node: ElementTree.Element) -> tuple[float, float, float, float]:
    """Left, top, right and bottom."""
    x, y = (float(part) for part in re.findall(r"[-\d.]+", node.attrib["transform"]))
    rect = node.find(f"{SVG}rect")
    assert rect is not None
    return x, y, x + float(rect.attrib["width"]), y + float(rect.attrib["height"])


def loads_nothing(text: str) -> bool:
    """Whether a picture or a page refers to no other file."""
    foreign = "http" in text.replace("http://www.w3.org/2000/svg", "")
    return not foreign and not re.search(r"url\(|@import|src=|href=", text)
