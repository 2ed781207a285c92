"""Gradient, Jacobian and Hessian of a function, by the reverse mode.

    gradient    g_i  = ∂f/∂x_i             f one number: one sweep
    Jacobian    J_ij = ∂f_i/∂x_j           one sweep per number of f
    Hessian     H_ij = ∂²f/∂x_i∂x_j        the Jacobian of the gradient: one sweep per number of x
    H v                                    the gradient of g · v: two sweeps, however long x is

The last makes curvature usable where H itself does not fit into memory: for a million numbers in x
it has 10¹² entries, but its product with one direction costs only a few times as much as f
(Pearlmutter 1994, "Fast exact multiplication by the Hessian").

With `create_graph` results are on the tape of `x`, so derivatives of any order can be computed: the
third is `jacobian(lambda x: hessian(f, x, create_graph=True), x)`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from groundup.maths.arrays import ShapeError
from groundup.maths.ops import stack
from groundup.maths.tensor import Operand, Tensor, grad, set_grad_enabled


@set_grad_enabled(True)  # also within no_grad()
def value_and_gradient(
    f: Callable[[Tensor], Tensor], x: Operand, *, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """Return f(x), a single number, and ∇f(x) in the shape of x, from one run and one sweep.

    The gradient is zero if f does not depend on x. Errors, here and below: `ShapeError` if f
    returns several numbers where one is needed.
    """
    point = _point(x)
    value = f(point)
    if value.numel() != 1:
        raise ShapeError(f"only a single number has a gradient, and f gives shape {value.shape}")
    if not value.requires_grad:
        return value, point.new_zeros(point.shape)
    return value, grad(value, point, create_graph=create_graph)[0]


@set_grad_enabled(True)
def jacobian(f: Callable[[Tensor], Tensor], x: Operand, *, create_graph: bool = False) -> Tensor:
    """J[i..., j...] = ∂f(x)[i...] / ∂x[j...], with the shape of f(x) followed by that of x."""
    point = _point(x)
    value = f(point)
    shape = (*value.shape, *point.shape)
    if not value.requires_grad or not value.numel():
        return point.new_zeros(shape)
    rows = [
        grad(value, point, seed.reshape(value.shape), retain_graph=True, create_graph=create_graph)
        for seed in np.eye(value.numel(), dtype=value.dtype)
    ]
    return stack([row for (row,) in rows]).reshape(shape)


def hessian(f: Callable[[Tensor], Tensor], x: Operand, *, create_graph: bool = False) -> Tensor:
    """H[i..., j...] = ∂²f(x) / ∂x[i...] ∂x[j...], symmetric, with the shape of x twice."""

    def gradient(point: Tensor) -> Tensor:
        return value_and_gradient(f, point, create_graph=True)[1]

    return jacobian(gradient, x, create_graph=create_graph)


def hessian_vector_product(
    f: Callable[[Tensor], Tensor], x: Operand, v: Operand, *, create_graph: bool = False
) -> Tensor:
    """H v = ∇(∇f(x) · v) with a fixed v in the shape of x, without forming H."""
    point = _point(x)
    direction = point.as_operand(v)
    if direction.shape != point.shape:
        raise ShapeError(f"v has shape {direction.shape}, but x has {point.shape}; they must match")

    def slope(at: Tensor) -> Tensor:
        return (value_and_gradient(f, at, create_graph=True)[1] * direction).sum()

    return value_and_gradient(slope, point, create_graph=create_graph)[1]


def _point(x: Operand) -> Tensor:
    """Return x itself if it requires gradients, so that results are on its tape; else a leaf."""
    return x if isinstance(x, Tensor) and x.requires_grad else Tensor(x, requires_grad=True)
