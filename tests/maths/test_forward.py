"""Dual numbers: against the derivative by hand, the reverse mode, torch, and central differences.

That every operation carries its tangent right is checked with its gradients, in `test_ops`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths import GradientError, ShapeError, Tensor, cat, grad, maximum, no_grad
from groundup.maths.forward import jvp
from groundup.maths.tensor import Operation, observers


def test_a_product_by_hand():
    value, moved = jvp(lambda x, y: x * y, [Tensor(3.0), Tensor(5.0)], [1.0, 10.0])
    assert value == 15 and moved == 5 + 30


def test_one_tensor_needs_no_list():
    value, moved = jvp(lambda x: x * x, Tensor([2.0, 3.0]), Tensor([1.0, 10.0]))
    assert value.tolist() == [4, 9] and moved.tolist() == [4, 60]
    assert jvp(lambda x: x.exp(), Tensor(0.0), 2.0)[1] == 2


def network(x: Any, w: Any, v: Any) -> Any:
    hidden = (x @ w).tanh()
    scores = (hidden * hidden.sigmoid()) @ v
    return scores.log_softmax(-1) - scores.logsumexp(0) * scores.var(1, keepdim=True)


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_both_modes_agree_with_torch_and_each_other(seed: int):
    """g · (J t) = (g J) · t, and both are torch's."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape) for shape in ((4, 3), (3, 5), (5, 2))]
    tangents = [rng.normal(size=a.shape) for a in arrays]
    tensors = [Tensor(a) for a in arrays]
    value, moved = jvp(network, tensors, tangents)
    _, truth = torch.func.jvp(
        network, tuple(map(torch.tensor, arrays)), tuple(map(torch.tensor, tangents))
    )
    np.testing.assert_allclose(moved.data, truth.numpy(), rtol=1e-10, atol=1e-12)
    g = rng.normal(size=value.shape)
    pulled = grad(network(*tensors), tensors, g)
    dots = sum((p.data * t).sum() for p, t in zip(pulled, tangents, strict=True))
    assert (g * moved.data).sum() == pytest.approx(dots, rel=1e-10, abs=1e-12)


def test_constant_and_multiple_results():
    x, c = Tensor([1.0, 2.0]), Tensor([5.0, 6.0])
    values, moved = jvp(lambda x: (x * 2, x, c, x > 1, x.argmax()), [x], [[1.0, 10.0]])
    assert [m.tolist() for m in moved] == [[2, 20], [1, 10], [0, 0], [False, False], 0]
    assert values[0].tolist() == [2, 4] and isinstance(moved, tuple)
    (extreme, places), (moved, _) = jvp(lambda x: x.max(0), [x], [[1.0, 10.0]])
    assert extreme == 2 and places == 1 and moved == 10


def test_captured_values_are_constant():
    w, x = Tensor(3.0), Tensor(2.0)
    assert jvp(lambda x: w * x, [x], [1.0])[1] == 3
    assert jvp(lambda w: w * x, [w], [1.0])[1] == 2


def test_parameters_can_be_used_through_closures():
    """The function need not use its arguments: tensors are identified by object identity."""
    w, x = Tensor(3.0), Tensor([1.0, 2.0], requires_grad=False)
    assert jvp(lambda _: (w * x).sum(), [w], [1.0])[1] == 3


def test_without_a_tape():
    """Constants can have tangents, and no_grad records nothing."""
    x = Tensor([1.0, 2.0], requires_grad=False)
    with no_grad():
        value, moved = jvp(lambda x: x.exp() * x.exp(), [x], [[1.0, 1.0]])
    assert not value.requires_grad and moved.data == pytest.approx(2 * np.exp(2 * x.data))
    assert not moved.requires_grad


def test_gradients_have_tangents():
    """Forward over reverse: d/dt of the gradient of x³ is 6x t."""
    moved = jvp(lambda x: grad((x**3).sum(), x)[0], [Tensor([1.0, 2.0])], [[1.0, 0.5]])[1]
    assert moved.tolist() == [6, 6]
    moved = jvp(lambda x: grad((x**3).sum(), x, create_graph=True)[0], [Tensor(2.0)], [1.0])[1]
    assert moved == 12


def test_tangents_keep_float32():
    x = Tensor(np.ones(2, np.float32))
    for function in (lambda x: maximum(x, 0.5), lambda x: x**2 / 3 + 2.0**x, lambda x: x.erf()):
        assert jvp(function, [x], [np.ones(2)])[1].dtype == np.float32


def test_no_state_remains_afterwards():
    before = observers.get()
    with pytest.raises(ZeroDivisionError):
        jvp(lambda x: x * (1 // 0), [Tensor(1.0)], [1.0])
    assert observers.get() == before == ()
    assert jvp(lambda x: x * 2, [Tensor(1.0)], [1.0])[1] == 2


def test_observers_see_every_operation():
    seen: list[str] = []

    def watch(operation: Operation, out: Tensor) -> None:
        seen.append(operation.name)

    token = observers.set((watch,))
    try:
        x = Tensor([1.0, 2.0])
        cat([x.exp(), x[:1]]).sum().backward()
    finally:
        observers.reset(token)
    assert seen[:4] == ["exp", "index", "cat", "sum"] and len(seen) > 6  # and the way back


def test_rejects_bad_input():
    x, y = Tensor([1.0, 2.0]), Tensor(1.0)
    with pytest.raises(ShapeError, match=r"\(3,\).*\(2,\)"):
        jvp(lambda x: x, [x], [np.ones(3)])
    with pytest.raises(GradientError, match="twice"):
        jvp(lambda a, b: a * b, [y, y], [1.0, 0.0])
    with pytest.raises(GradientError, match="jvp cannot be nested"):
        jvp(lambda x: jvp(lambda z: z**3, [x], [1.0])[1], [y], [1.0])

    def changed(x: Tensor) -> Tensor:
        z = x * 2
        with no_grad():
            z.mul_(3.0)
        return z + 1

    with pytest.raises(GradientError, match="changed in place"):
        jvp(changed, [y], [1.0])
    with pytest.raises(GradientError, match="no gradient"):  # a tangent is a constant
        grad(jvp(lambda x: x * x, [y], [1.0])[1], y)
