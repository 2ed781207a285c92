"""The drawn graph: its completeness, its layout and its gradients."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from drawings import (
    SVG,
    ancestors,
    box,
    chain,
    choices,
    groups,
    loads_nothing,
    network,
    neuron,
    random_graph,
    rows,
)
from groundup.maths import GradientError, ShapeError, Tensor, cat, no_grad
from groundup.maths.graph.computation import MAX_NODES
from groundup.maths.graph.draw import draw


def edges_of(tensors: list[Tensor]) -> list[str]:
    place = {tensor.number: i for i, tensor in enumerate(tensors)}
    return sorted(
        f"{place[parent.number]} {place[tensor.number]} {operand}"
        for tensor in tensors
        for operand, parent in enumerate(tensor.node.parents if tensor.node else ())
    )


def curve(edge: ElementTree.Element) -> list[tuple[float, float]]:
    """Points along an edge's line, by the formula of the cubic Bézier curve."""
    path = edge.find(f"{SVG}path")
    assert path is not None
    points: list[tuple[float, float]] = []
    for command, text in re.findall(r"([MCH])([^MCH]*)", path.attrib["d"]):
        numbers = [float(part) for part in text.split()]
        if command == "M":
            points.append((numbers[0], numbers[1]))
        elif command == "H":
            points.append((numbers[0], points[-1][1]))
        else:
            corners = np.array([points[-1], *zip(numbers[::2], numbers[1::2], strict=True)])
            for t in np.linspace(0, 1, 20):
                weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
                points.append(tuple(np.array(weights) @ corners))
    return points


@given(choices)
@settings(deadline=None, max_examples=40)
def test_every_node_and_edge_is_drawn_once(drawn):
    root = random_graph(drawn)
    svg = draw(root)
    tensors = ancestors(root)
    assert sorted(groups(svg, "data-node"), key=int) == [str(i) for i in range(len(tensors))]
    assert sorted(groups(svg, "data-edge")) == edges_of(tensors)


@given(choices)
@settings(deadline=None, max_examples=40)
def test_boxes_do_not_overlap_and_edges_avoid_other_boxes(drawn):
    root = random_graph(drawn)
    svg = draw(root)
    boxes = {name: box(node) for name, node in groups(svg, "data-node").items()}
    for (a, b, c, d), (e, f, g, h) in combinations(boxes.values(), 2):
        assert c < e or g < a or d < f or h < b
    width, height = (float(ElementTree.fromstring(svg).attrib[n]) for n in ("width", "height"))
    left, top, right, bottom = zip(*boxes.values(), strict=True)
    assert min(left) >= 0 and min(top) >= 0
    assert max(right) <= width - 19 and max(bottom) <= height - 19
    for name, edge in groups(svg, "data-edge").items():
        parent, child, _ = name.split()
        points = curve(edge)
        assert points[0][0] == pytest.approx(boxes[parent][2], abs=0.11)
        assert points[-1][0] == pytest.approx(boxes[child][0], abs=0.11)
        assert boxes[parent][1] < points[0][1] < boxes[parent][3]
        assert boxes[child][1] < points[-1][1] < boxes[child][3]
        for a, b, c, d in boxes.values():
            assert not any(a + 0.2 < x < c - 0.2 and b < y < d for x, y in points)


def test_a_tree_is_drawn_without_crossings_and_with_operands_in_order():
    root, named = neuron()
    svg = draw(root, names=named)
    tops = {rows(node)[0][0]: box(node)[1] for node in groups(svg, "data-node").values()}
    assert tops["x1"] < tops["w1"] < tops["x2"] < tops["w2"]


def test_a_long_chain_is_drawn_in_line():
    x = Tensor(0.5)
    y = x
    for _ in range(60):
        y = (y * x + 0.1).tanh()
    boxes = {rows(node)[0][0]: [] for node in groups(draw(y), "data-node").values()}
    for node in groups(draw(y), "data-node").values():
        boxes[rows(node)[0][0]].append(box(node)[1])
    assert max(np.ptp(boxes[kind]) for kind in ("mul", "add", "tanh")) < 150


def test_the_neuron_shows_its_values_and_known_gradients():
    root, named = neuron()
    boxes = [rows(node) for node in groups(draw(root, names=named), "data-node").values()]
    shown = {lines[0][0]: [line[1] for line in lines[1:]] for lines in boxes}
    assert shown["x1"] == ["2", "-1.5"]
    assert shown["w1"] == ["-3", "1"]
    assert shown["x2"] == ["0", "0.5"]
    assert shown["w2"] == ["1", "0"]
    assert shown["b"] == ["6.881", "0.5"]
    assert shown["y"] == ["0.7071", "1"]


def test_small_arrays_show_numbers_and_large_ones_shape_and_norm():
    a, b = Tensor([[1.0, 2.5], [-3.0, 1e-7]]), Tensor(np.full((3, 2), 0.5))
    count = Tensor(np.array([3, 123456789012]))
    root = (b @ a).sum() + (a * count).sum()
    named = {"a": a, "b": b, "count": count}
    boxes = [rows(node) for node in groups(draw(root, names=named), "data-node").values()]
    shown = {lines[0][0]: lines[1:] for lines in boxes}
    assert shown["a"][:2] == [["value", "[[1, 2.5],"], ["", "[-3, 1e-07]]"]]
    assert shown["a"][2:] == [["grad", "[[4.5, 1.235e+11],"], ["", "[4.5, 1.235e+11]]"]]
    # d(sum)/db has rows of a's row sums, 3.5 and -3
    norm = (3 * (3.5**2 + 3.0**2)) ** 0.5
    assert shown["b"] == [["shape", "(3, 2)"], ["grad", f"norm {norm:.4g}"]]
    assert shown["count"] == [["value", "[3, 1.235e+11]"]]


def test_texts_fit_in_their_boxes():
    tiny = Tensor([[-1.2345e-20, -1.2345e-20], [-1.2345e-20, -1.2345e-20]])
    name = "model.layers.0.self_attn.q_proj.weight"
    for root in (tiny * -1.2345e-15, Tensor(-1.2345e-20) ** 2, Tensor(np.ones((10, 20, 30))).sum()):
        first = ancestors(root)[0]
        for svg in (draw(root, names={name: first}), draw(root, names={"模型的权重": first})):
            for node in groups(svg, "data-node").values():
                left, top, right, bottom = box(node)
                for text in node.findall(f"{SVG}text"):
                    assert float(text.attrib["y"]) < bottom - top
                for pair in rows(node):
                    letters = sum(2 if "一" <= c <= "龥" else 1 for c in "".join(pair))
                    assert (letters + 1) * 7.23 < right - left  # 12 px letters of DejaVu Sans Mono


def test_names_are_escaped_and_other_values_are_accepted_as_names():
    x = Tensor(2.0)
    y = x * 3.0
    evil = '<script>alert("x")</script>&\x00\x1b\ud800'
    names = {evil: x, "elsewhere": Tensor(1.0), "number": 3, "$title": y}
    svg = draw(y, names=names)
    assert "<script>alert" not in svg
    assert "elsewhere" not in svg
    svg.encode("utf-8")
    drawn = ElementTree.fromstring(svg)
    titles = [title.text or "" for title in drawn.iter(f"{SVG}title")]
    assert any(title.startswith('<script>alert("x")</script>&���') for title in titles)
    assert any(title.startswith("$title = ") for title in titles)


def test_a_picture_loads_nothing_and_has_a_description(tmp_path):
    root, named = neuron()
    svg = draw(root, names=named)
    assert loads_nothing(svg)
    assert "prefers-color-scheme: dark" in svg
    drawn = ElementTree.fromstring(svg)
    title, description = drawn.find(f"{SVG}title"), drawn.find(f"{SVG}desc")
    assert title is not None and title.text == "The computation of y"
    assert description is not None and "x1 is given: 2." in (description.text or "")
    assert svg._repr_svg_() == svg
    svg.save(tmp_path / "y.svg")
    assert ElementTree.parse(tmp_path / "y.svg").getroot().tag == f"{SVG}svg"


def contrast(one: str, other: str) -> float:
    """The contrast of two colours (WCAG 2.1)."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_text_has_enough_contrast_in_light_and_dark():
    light, dark = draw(Tensor(1.0)).split("prefers-color-scheme: dark")
    for style in (light, dark):
        fill = dict(re.findall(r"graph (?:\.|)([\w ]+) \{ fill: (#\w+) \}", style))
        ink, quiet, slope = fill["text"], fill["paper"], fill["slope"]
        quiet = re.findall(r"\.label, .*? \{ fill: (#\w+) \}", style)[0]
        for paper in (fill["leaf"], fill["constant"], fill["operation"], fill["paper"]):
            assert min(contrast(text, paper) for text in (ink, quiet, slope)) >= 4.5


def test_a_product_of_a_tensor_with_itself_has_two_edges():
    x = Tensor(3.0)
    y = x * x
    assert sorted(groups(draw(y), "data-edge")) == ["0 1 0", "0 1 1"]


def test_drawing_does_not_change_grad():
    root, named = network()
    draw(root)
    assert all(t.grad is None for t in named.values())
    root.backward(retain_graph=True)
    before = {name: t.grad.data.copy() for name, t in named.items() if t.grad is not None}
    draw(root)
    assert set(before) == {"w", "b", "v"}
    for name, gradient in before.items():
        np.testing.assert_array_equal(named[name].grad.data, gradient)


def test_a_freed_graph_is_rejected_with_the_remedy():
    root, _ = neuron()
    root.backward()
    with pytest.raises(GradientError, match="retain_graph=True"):
        draw(root)


def test_a_large_graph_is_rejected_with_its_size_and_the_remedy():
    y = chain(MAX_NODES)
    with pytest.raises(ValueError, match=r"401 nodes and a picture at most 400.*detach"):
        draw(y)
    draw(y.node.parents[0])


def test_a_changed_value_is_an_error_unless_only_values_are_drawn():
    x = Tensor(2.0)
    y = x * x
    with no_grad():
        x.add_(1.0)
    with pytest.raises(GradientError, match="changed in place"):
        draw(y)
    assert "grad" not in [
        row[0] for row in rows(groups(draw(y, gradients=False), "data-node")["1"])
    ]


def test_draws_tensors_without_gradients_and_roots_with_many_elements():
    still = Tensor([1.0, 2.0], requires_grad=False)
    assert rows(groups(draw(still), "data-node")["0"])[1:] == [["value", "[1, 2]"]]
    x = Tensor([1.0, 2.0])
    node = groups(draw(x * x), "data-node")["0"]
    oracle = torch.tensor([1.0, 2.0], requires_grad=True)
    (oracle * oracle).sum().backward()
    assert rows(node)[2] == ["grad", f"[{oracle.grad[0]:.4g}, {oracle.grad[1]:.4g}]"]


@pytest.mark.parametrize("make", [lambda x: cat([x, x, x]).sum(), lambda x: (x.log() * x).sum()])
def test_infinities_and_empty_arrays_are_drawn(make):
    for value in (np.zeros(2), np.full(2, np.inf), np.zeros((0,)), np.full((3,), 1e300)):
        ElementTree.fromstring(draw(make(Tensor(value))))
    with pytest.raises(ShapeError):
        Tensor(np.zeros(2)) + Tensor(np.zeros(3))
