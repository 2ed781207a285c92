"""The steps of backpropagation: order, gradients, explanations and the page."""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings

from drawings import (
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
from groundup.maths import GradientError, ShapeError, Tensor, cat, einsum, grad, ops, where
from groundup.maths.graph.computation import MAX_NODES
from groundup.maths.graph.draw import draw
from groundup.maths.graph.steps import MAX_ANIMATED, animate, steps


@pytest.mark.parametrize("make", [neuron, network])
def test_steps_run_forward_in_order_and_end_with_the_gradients_of_backward(make):
    root, named = make()
    walked = list(steps(root, names=named))
    forward = [step.tensor for step in walked if step.direction == "forward"]
    backward = [step.tensor for step in walked if step.direction == "backward"]
    tensors = ancestors(root)
    assert [t.number for t in forward] == [t.number for t in tensors]
    assert [t.number for t in backward] == [t.number for t in tensors[::-1] if t.requires_grad]
    assert [step.direction for step in walked] == sorted(
        (step.direction for step in walked), reverse=True
    )
    assert all(t.grad is None for t in tensors)
    shares: dict[int, np.ndarray] = {root.number: np.ones(())}
    for step in walked[len(forward) :]:
        for operand, share in step.shares.items():
            number = step.tensor.node.parents[operand].number
            shares[number] = shares.get(number, 0.0) + share.data
    root.backward()  # the tape is still there
    for name, t in named.items():
        if t.requires_grad and t is not root:
            assert t.grad is not None, name
            np.testing.assert_allclose(walked[-1].gradients[t.number].data, t.grad.data, rtol=1e-12)
            np.testing.assert_allclose(shares[t.number], t.grad.data, rtol=1e-12)


@given(choices)
@settings(deadline=None, max_examples=40)
def test_a_gradient_is_complete_before_it_is_passed_on(drawn):
    root = random_graph(drawn)
    order = [step for step in steps(root) if step.direction == "backward"]
    for step in order:
        whole = order[-1].gradients[step.tensor.number].data
        assert step.gradients[step.tensor.number].data == pytest.approx(whole, rel=1e-12)
    root.backward()
    for step in order:
        if step.tensor.is_leaf and step.tensor.grad is not None:
            whole = order[-1].gradients[step.tensor.number].data
            assert step.tensor.grad.data == pytest.approx(whole, rel=1e-12)


def test_steps_are_frozen_and_keep_earlier_values():
    root, _ = neuron()
    walked = list(steps(root))
    with pytest.raises(AttributeError):
        walked[0].rule = "mul"  # type: ignore[misc]
    with pytest.raises(TypeError):
        walked[-1].gradients[0] = root  # type: ignore[index]
    assert [len(step.gradients) for step in walked] == [0] * 10 + [
        2,
        4,
        6,
        8,
        10,
        10,
        10,
        10,
        10,
        10,
    ]


def test_steps_have_explanations():
    x, w = Tensor(2.0), Tensor(-3.0)
    y = x * w
    z = y + x**2
    words = [step.explanation for step in steps(z, names={"x": x, "w": w, "y": y, "z": z})]
    assert words == [
        "x is given: 2.",
        "w is given: -3.",
        "y is x · w = 2 · -3 = -6.",
        "constant 4 is given: 2.",
        "pow 5 is x ^ 2 = 2 ^ 2 = 4.",
        "z is y + pow 5 = -6 + 4 = -2.",
        "z: the gradient starts as 1 and goes to y (1) and goes to pow 5 (1).",
        "pow 5: the gradient 1 times ∂(pow 5)/∂x = 4 goes to x (4).",
        "y: the gradient 1 times ∂y/∂x = -3 goes to x (-3, together 1) "
        "and times ∂y/∂w = 2 goes to w (2).",
        "w: the gradient 2 is complete.",
        "x: the gradient 1 is complete.",
    ]


def test_both_contributions_of_a_square_are_shown():
    x = Tensor(3.0)
    said = list(steps(x * x))[2].explanation
    assert "goes to leaf 1 (3) and" in said
    assert said.endswith("goes to leaf 1 (3, together 6).")


def test_without_gradients_only_values_are_shown():
    still = Tensor([1.0, 2.0], requires_grad=False)
    assert [step.direction for step in steps(still)] == ["forward"]


def test_broadcasting_is_explained():
    x, b = Tensor(np.ones((4, 3)), requires_grad=False), Tensor(np.zeros(3))
    said = [step.explanation for step in steps(x + b, names={"b": b})]
    assert said[3] == (
        "add 3: the gradient starts as ones and summed over the broadcast dimensions "
        "goes to b (norm 6.928)."
    )


@pytest.mark.parametrize(
    "function",
    [
        *(ops.exp, ops.expm1, ops.log, ops.log1p, ops.sqrt, ops.rsqrt, ops.tanh, ops.sigmoid),
        *(ops.relu, ops.erf, ops.sin, ops.cos, ops.abs, ops.clone, ops.square, ops.reciprocal),
        *(ops.sum, ops.mean, ops.var, ops.std, ops.amax, ops.amin, ops.max, ops.min),
        *(ops.silu, ops.gelu, ops.float, ops.tril, ops.triu, ops.flatten),
        lambda x: -(x + 1.0) / (x - 2.0) * 3.0 ** (x**2.5),
        lambda x: x @ x,
        lambda x: einsum("ij,kj->ik", x, x),
        lambda x: ops.clip(x, 0.5, 1.5),
        lambda x: ops.maximum(x, 1.0) + ops.minimum(x, 1.0),
        lambda x: where(x > 1.0, x, -x),
        lambda x: x.softmax(-1) + x.log_softmax(-1) + x.logsumexp(-1) + x.cumsum(0),
        lambda x: x.reshape(4).unsqueeze(0).expand(3, 4) * x.T.permute(1, 0).transpose(0, 1)[0, 1],
        lambda x: x.repeat(2, 2).roll(1, 0).flip(0, 1)[[0, 0]],
        lambda x: cat([x, x]),
        lambda x: ops.scatter(x, np.array([0, 2]), (3, 2)),
        lambda x: grad(x.relu().sum(), x, create_graph=True)[0] * x,
    ],
)
def test_every_operation_explains_its_gradient(function):
    for x in (Tensor([[0.5, 1.5], [2.5, 3.5]]), Tensor(0.5)):
        with suppress(ShapeError, IndexError, ValueError):  # not all take a single number
            root = function(x)
            for step in steps(root):
                for operand, share in step.shares.items():
                    parent = step.tensor.node.parents[operand]
                    kind = "leaf" if parent.is_leaf else parent.node.name
                    goes = re.findall(rf"([^()]*) goes to {kind} \d+ \(", step.explanation)
                    assert goes and share.shape == parent.shape
                    if not step.tensor.ndim and "by the rule of" in goes[0]:
                        assert parent.ndim  # otherwise the derivative is a number


def test_a_custom_operation_is_explained():
    x = Tensor(2.0)
    cube = Tensor.apply("cube", lambda a: a**3, (x,), (lambda g, _: g * (3 * x * x),))
    assert list(steps(cube))[2].explanation == (
        "cube 2: the gradient starts as 1 and times ∂(cube 2)/∂(leaf 1) = 12 goes to leaf 1 (12)."
    )


def test_a_step_shows_only_known_values_and_colors_the_current_ones():
    root, named = neuron()
    walked = list(steps(root, names=named))
    multiplied = groups(draw(root, names=named, step=walked[5]), "data-node")
    assert [len(rows(node)) for node in multiplied.values()] == [2] * 6 + [1] * 4
    assert multiplied["5"].attrib["class"] == "node forward"
    assert multiplied["6"].attrib["class"] == "node ahead"
    flowing = groups(draw(root, names=named, step=walked[5]), "data-edge")
    coloured = {name for name, edge in flowing.items() if edge.attrib["class"] == "edge forward"}
    assert coloured == {"0 5 0", "2 5 1"}

    back = groups(draw(root, names=named, step=walked[11]), "data-node")  # the outer sum
    assert back["8"].attrib["class"] == "node backward"
    assert rows(back["9"])[-1] == ["grad", "1"]
    assert rows(back["8"])[-1] == ["grad", "0.5"]
    assert rows(back["4"])[-1] == rows(back["7"])[-1] == ["so far", "0.5"]
    assert rows(back["0"]) == [["x1", "leaf"], ["value", "2"]]
    flowing = groups(draw(root, names=named, step=walked[11]), "data-edge")
    coloured = {name for name, edge in flowing.items() if edge.attrib["class"] == "edge backward"}
    assert coloured == {"7 8 0", "4 8 1"}


def test_constants_receive_no_gradient():
    x = Tensor(2.0)
    y = x * Tensor(5.0, requires_grad=False)
    back = next(step for step in steps(y) if step.direction == "backward")
    assert list(back.shares) == [0]
    edges = groups(draw(y, step=back), "data-edge")
    assert [edges[name].attrib["class"] for name in ("0 2 0", "1 2 1")] == [
        "edge backward",
        "edge known",
    ]


def test_a_step_of_another_graph_is_rejected():
    step = next(steps(neuron()[0]))
    with pytest.raises(ValueError, match="not in this graph"):
        draw(neuron()[0], step=step)


def test_all_frames_of_an_animation_have_the_same_layout():
    root, named = network()
    page = animate(root, names=named)
    frames = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(frames) == len(list(steps(root)))
    places = [[box(node) for node in groups(frame, "data-node").values()] for frame in frames]
    assert all(place == places[0] for place in places)
    assert page.count("<section>") == 1 and page.count("<section hidden>") == len(frames) - 1
    assert page.count("<script>") == 1 and "ArrowLeft" in page and "ArrowRight" in page


def test_names_are_escaped_in_the_page():
    x = Tensor(2.0)
    y = x * 3.0
    evil = '<script>alert("x")</script>&\x00\x1b\ud800'
    page = animate(y, names={evil: x, "elsewhere": Tensor(1.0), "number": 3, "$title": y})
    assert "<script>alert" not in page
    assert "elsewhere" not in page
    assert "<title>The computation of $title, step by step</title>" in page
    assert "<h1>The computation of $title</h1>" in page
    page.encode("utf-8")


def test_a_page_loads_nothing_and_works_in_a_notebook_and_a_file(tmp_path):
    root, named = neuron()
    page = animate(root, names=named)
    assert loads_nothing(page)
    assert "prefers-color-scheme: dark" in page
    assert page._repr_html_().startswith("<iframe srcdoc=")
    page.save(tmp_path / "y.html")
    assert (tmp_path / "y.html").read_text(encoding="utf-8") == page


def test_steps_do_not_change_grad():
    root, named = network()
    list(steps(root)), animate(root)
    assert all(t.grad is None for t in named.values())
    root.backward(retain_graph=True)
    before = {name: t.grad.data.copy() for name, t in named.items() if t.grad is not None}
    list(steps(root)), animate(root)
    assert set(before) == {"w", "b", "v"}
    for name, gradient in before.items():
        np.testing.assert_array_equal(named[name].grad.data, gradient)


def test_the_steps_of_a_freed_graph_are_rejected_with_the_remedy():
    root, _ = neuron()
    root.backward()
    with pytest.raises(GradientError, match="retain_graph=True"):
        next(steps(root))


def test_steps_reject_graphs_that_are_too_large():
    with pytest.raises(ValueError, match=r"401 nodes and a picture at most 400.*detach"):
        list(steps(chain(MAX_NODES)))
    with pytest.raises(ValueError, match=f"at most {MAX_ANIMATED}"):
        animate(chain(MAX_ANIMATED))
    assert animate(chain(MAX_ANIMATED - 1)).count("<svg") == 2 * MAX_ANIMATED
