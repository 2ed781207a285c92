"""gradcheck finds wrong rules, and accepts right ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from groundup.maths import GradientError, Tensor, cat, einsum, gelu, no_grad, where
from groundup.maths.gradcheck import gradcheck, gradgradcheck, numerical_jacobian


def tensor(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(0).normal(size=shape))


def wrong_factor(x: Tensor) -> Tensor:
    return Tensor.apply("exp", np.exp, (x,), (lambda g, y: g * y * 1.01,))


def wrong_sign(x: Tensor) -> Tensor:
    return Tensor.apply("cos", np.cos, (x,), (lambda g, _: g * x.sin(),))


def wrong_place(x: Tensor) -> Tensor:
    return Tensor.apply("flip", lambda a: a[::-1], (x,), (lambda g, _: g,), linear=True)


def forgotten(x: Tensor) -> Tensor:
    return Tensor.apply("mul", np.multiply, (x, x), (lambda g, _: g * x, None))


def not_a_number(x: Tensor) -> Tensor:
    return Tensor.apply("sin", np.sin, (x,), (lambda g, _: g * np.nan,))


@pytest.mark.parametrize("wrong", [wrong_factor, wrong_sign, wrong_place, forgotten, not_a_number])
def test_a_wrong_rule_is_found(wrong: Callable[[Tensor], Tensor]):
    with pytest.raises(GradientError, match=r"gradient of output \d by element \d of input 0"):
        gradcheck(wrong, tensor(3))


def test_the_worst_entry_is_named():
    def one_wrong(x: Tensor, y: Tensor) -> Tensor:
        factor = np.array([1.0, 1.0, 2.0])
        return Tensor.apply(
            "add", np.add, (x, y), (lambda g, _: g, lambda g, _: g * factor), linear=True
        )

    with pytest.raises(GradientError, match=r"output 2 by element 2 of input 1.*is 2, .*gives 1"):
        gradcheck(one_wrong, tensor(3), tensor(3))


def test_a_wrong_tangent_is_found():
    """A square declared linear: its tangent moves like its value, which is wrong."""

    def square(x: Tensor) -> Tensor:
        return Tensor.apply("square", np.square, (x,), (lambda g, _: g * 2 * x,), linear=True)

    assert gradcheck(square, tensor(3), forward=False)
    with pytest.raises(GradientError, match="the tangent of output"):
        gradcheck(square, tensor(3))


def test_a_wrong_second_rule_is_found():
    """The gradient has the right value but is a constant, so its own gradient is lost."""

    def exponential(x: Tensor) -> Tensor:
        return Tensor.apply("exp", np.exp, (x,), (lambda g, y: g * y.detach(),))

    assert gradcheck(exponential, tensor(3))
    with pytest.raises(GradientError, match="gradient of output"):
        gradgradcheck(exponential, tensor(3))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (gelu, [(2, 2)]),
        (lambda x, y: x @ y, [(2, 3), (3, 2)]),
        (lambda x: x.softmax(-1).log(), [(2, 3)]),
        (lambda x, y: einsum("ij,j->i", x, y) ** 2, [(2, 3), (3,)]),
        (lambda x, y: where(np.array([True, False]), x, y), [(2,), (3, 2)]),
        (lambda x: cat([x[[0, 0]], x * x]), [(2, 2)]),
        (lambda x: x.var() * 2, [(3,)]),
        (lambda x: x * 3.0, [()]),
        (lambda x: x * 3.0, [(0,)]),
        (lambda x, y: x * 1.0, [(2,), (2,)]),
    ],
)
def test_right_rules_pass(function: Callable[..., Tensor], shapes: list[tuple[int, ...]]):
    inputs = [tensor(*shape) for shape in shapes]
    kept = [x.data.copy() for x in inputs]
    assert gradcheck(function, *inputs) is True
    assert gradgradcheck(function, *inputs) is True
    assert all(x.grad is None and (x.data == k).all() for x, k in zip(inputs, kept, strict=True))


def test_the_numerical_jacobian_is_the_matrix_of_a_linear_map():
    a = np.random.default_rng(1).normal(size=(3, 4))
    found = numerical_jacobian(lambda x: a @ x, (tensor(4),), 0)
    np.testing.assert_allclose(found, a, atol=1e-8)


def test_float32_is_too_imprecise():
    with pytest.raises(GradientError, match="input 1 is float32"):
        gradcheck(lambda x, y: x * y, tensor(2), Tensor(np.ones(2, np.float32)))


def test_inputs_without_gradients_are_passed_through(unchecked_types: None):
    constant = Tensor(np.array([1.0, 2.0]), requires_grad=False)
    assert gradcheck(lambda x, y, n: x[n] * y, tensor(2), constant, np.array([1, 0]))
    assert gradgradcheck(lambda x, y: x**3 * y, (tensor(2), constant), eps=1e-5)


def test_a_check_records_within_no_grad():
    with no_grad():
        assert gradcheck(lambda x: x * x, tensor(2)) and gradgradcheck(lambda x: x**3, tensor(2))


def test_rejects_a_check_of_nothing() -> None:
    with pytest.raises(GradientError, match="no input requires a gradient"):
        gradcheck(lambda x: x * 3, Tensor([1.0], requires_grad=False))
