"""Jacobians, Hessians and their products against torch.func."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths.arrays import ShapeError
from groundup.maths.derivatives import (
    hessian,
    hessian_vector_product,
    jacobian,
    value_and_gradient,
)
from groundup.maths.forward import jvp
from groundup.maths.tensor import GradientError, Tensor, no_grad

# Written with what tensors of both engines have: (n,) -> one number, and (n,) -> anything.
SCALARS: list[Callable[[Any], Any]] = [
    lambda x: (x * x.roll(1, 0)).sum() + (x**3).mean(),
    lambda x: x.logsumexp(0) + (x.tanh() * x[0]).sum(),
    lambda x: (x**2 + 1).log().sum() * x[-1].sin(),
    lambda x: x.softmax(0)[0] * (x * 0.3).exp().sum(),
]
ARRAYS: list[Callable[[Any], Any]] = [
    lambda x: x.sin() * x[0],
    lambda x: x.reshape(-1, 1) * x**2,
    lambda x: x.log_softmax(0)[0],
    lambda x: x.cumsum(0).reshape(1, -1, 1).exp(),
]
vectors = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.floats(-2, 2), min_size=n, max_size=n).map(np.array)
)


def close(found: Tensor, wanted: torch.Tensor) -> None:
    assert found.shape == tuple(wanted.shape)
    np.testing.assert_allclose(found.data, wanted.detach().numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("f", SCALARS)
@given(x=vectors)
@settings(max_examples=15, deadline=None)
def test_hessians_and_gradients_equal_torchs(f: Callable[[Any], Any], x: np.ndarray) -> None:
    value, gradient = value_and_gradient(f, x)
    close(value, f(torch.tensor(x)))
    close(gradient, torch.func.grad(f)(torch.tensor(x)))
    close(hessian(f, x), torch.func.hessian(f)(torch.tensor(x)))


@pytest.mark.parametrize("f", ARRAYS + SCALARS)
@given(x=vectors)
@settings(max_examples=10, deadline=None)
def test_jacobians_equal_torchs(f: Callable[[Any], Any], x: np.ndarray) -> None:
    close(jacobian(f, x), torch.func.jacrev(f)(torch.tensor(x)))


@pytest.mark.parametrize("f", SCALARS)
@given(x=vectors, seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_three_ways_to_compute_a_hessian_vector_product_agree(
    f: Callable[[Any], Any], x: np.ndarray, seed: int
) -> None:
    v = np.random.default_rng(seed).normal(size=x.shape)
    product = hessian_vector_product(f, x, v)
    np.testing.assert_allclose(product.data, hessian(f, x).data @ v, rtol=1e-9, atol=1e-9)
    # Forward over reverse: the derivative of the gradient in the direction v, by dual numbers.
    _, moved = jvp(lambda p: value_and_gradient(f, p, create_graph=True)[1], [Tensor(x)], [v])
    np.testing.assert_allclose(product.data, moved.data, rtol=1e-9, atol=1e-9)
    theirs = torch.func.jvp(torch.func.grad(f), (torch.tensor(x),), (torch.tensor(v),))[1]
    close(product, theirs)


def test_accepts_points_of_any_shape() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3))

    def f(x: Any) -> Any:
        return x @ x.mT

    def total(x: Any) -> Any:
        return (f(x) ** 2).sum()

    close(jacobian(f, x), torch.func.jacrev(f)(torch.tensor(x)))
    close(hessian(total, x), torch.func.hessian(total)(torch.tensor(x)))
    close(hessian(lambda t: t**3, 2.0), torch.tensor(12.0))
    assert jacobian(f, np.zeros((2, 0))).shape == (2, 2, 2, 0)


def test_derivatives_of_any_order() -> None:
    f, x = SCALARS[1], np.array([0.3, -0.7, 1.1])
    third = jacobian(lambda p: hessian(f, p, create_graph=True), x)
    close(third, torch.func.jacfwd(torch.func.hessian(f))(torch.tensor(x)))


def test_results_on_the_tape_have_gradients() -> None:
    x = Tensor([1.0, 2.0])
    v = [1.0, 1.0]
    hessian_vector_product(lambda p: (p**4).sum(), x, v, create_graph=True).sum().backward()
    assert x.grad is not None and x.grad.tolist() == pytest.approx([24.0, 48.0])
    assert not hessian(lambda p: (p**4).sum(), x).requires_grad


def test_independent_outputs_have_zero_derivatives() -> None:
    with no_grad():
        constant = Tensor([1.0, 2.0]) * 2
    assert value_and_gradient(lambda x: constant.sum(), [1.0, 2.0])[1].tolist() == [0.0, 0.0]
    assert jacobian(lambda x: constant, [1.0]).tolist() == [[0.0], [0.0]]
    assert hessian(lambda x: (3 * x).sum(), [1.0, 2.0]).tolist() == [[0.0, 0.0]] * 2
    assert hessian_vector_product(lambda x: x.sum(), [1.0], [5.0]).tolist() == [0.0]


def test_derivatives_work_within_no_grad() -> None:
    with no_grad():
        assert hessian(lambda x: (x**2).sum(), [1.0, 2.0]).tolist() == [[2.0, 0.0], [0.0, 2.0]]


def test_grad_attributes_do_not_change() -> None:
    x = Tensor([1.0, 2.0])
    hessian(lambda p: (p**3).sum(), x)
    hessian_vector_product(lambda p: (p**3).sum(), x, [1.0, 0.0])
    assert x.grad is None


def test_errors_name_the_shapes() -> None:
    with pytest.raises(
        ShapeError, match=r"only a single number has a gradient, and f gives shape \(2,\)"
    ):
        hessian(lambda x: x * 2, [1.0, 2.0])
    with pytest.raises(ShapeError, match=r"v has shape \(3,\), but x has \(2,\)"):
        hessian_vector_product(lambda x: x.sum(), [1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(GradientError, match="int64 has no gradients"):
        jacobian(lambda x: x * 2, np.array([1, 2]))
