"""Forward mode: derivatives carried along with the values, by dual numbers.

A dual number is a pair (x, t): a value, and how fast it moves. Arithmetic on pairs follows from
f(x + ε t) = f(x) + ε f'(x) t with ε² = 0 (Clifford 1873; Wengert 1964, for programs), for example

    (x, t) · (y, u) = (x y, t y + x u).

One run gives the value of f and its directional derivative J t, the Jacobian times a vector, where
one backward sweep gives g J, a vector times the Jacobian. Nothing here uses the rules of the
reverse mode, so each is a check of the other: g · (J t) = (g J) · t.

Three kinds of rule are enough. A linear map moves tangents as it moves values. A product of
several factors varies one factor at a time. The rest are the derivatives in the table below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi, sqrt
from typing import Any, TypeAlias

import numpy as np

from groundup.maths.autograd import Operation, Tensor, observers
from groundup.maths.values import Array, Operand, ShapeError


def jvp(
    function: Callable[..., Any],
    primals: Sequence[Tensor],
    tangents: Sequence[Operand],
) -> tuple[Any, Any]:
    """The value of `function(*primals)` and its derivative in the direction of `tangents`.

    `function` gives a tensor or a tuple of tensors, and both results have that form. Each
    tangent has the shape of its primal. A gradient taken inside `function` moves as well, which
    gives Hessian-vector products (forward over reverse).
    """
    moving: dict[int, Array] = {}
    for primal, tangent in zip(primals, tangents, strict=True):
        moving[primal.number] = np.asarray(primal.like(tangent).data, dtype=primal.dtype)
        if moving[primal.number].shape != primal.shape:
            raise ShapeError(
                f"a tangent of shape {moving[primal.number].shape} is not one for {primal.shape}"
            )

    def carry(operation: Operation, out: Tensor) -> None:
        parts = [moving.get(parent.number) for parent in operation.parents]
        if any(part is not None for part in parts) and out.dtype.kind == "f":
            with np.errstate(all="ignore"):
                moving[out.number] = np.asarray(_tangent(operation, parts, out.data))

    observers.append(carry)
    try:
        value = function(*primals)
    finally:
        observers.remove(carry)

    def tangent_of(tensor: Tensor) -> Tensor:
        return Tensor.made(moving.get(tensor.number, np.zeros_like(tensor.data)))

    if isinstance(value, Tensor):
        return value, tangent_of(value)
    return value, tuple(tangent_of(tensor) for tensor in value)


def _tangent(operation: Operation, tangents: list[Array | None], y: Array) -> Any:
    """How fast the result y moves, from how fast the parents move; None stands still."""
    arrays = [parent.data for parent in operation.parents]
    if operation.linear:
        pairs = zip(arrays, tangents, strict=True)
        return operation.forward(*(np.zeros_like(x) if t is None else t for x, t in pairs))
    if operation.name in PRODUCTS:
        terms = [
            operation.forward(*arrays[:i], t, *arrays[i + 1 :])
            for i, t in enumerate(tangents)
            if t is not None
        ]
        return sum(terms[1:], start=terms[0])
    if operation.name in ELEMENTWISE:
        return ELEMENTWISE[operation.name](arrays[0], y) * tangents[0]
    if operation.name in OF_TWO:
        slopes = OF_TWO[operation.name](arrays[0], arrays[1], y)
        terms = [slope() * t for slope, t in zip(slopes, tangents, strict=True) if t is not None]
        return sum(terms[1:], start=np.broadcast_to(terms[0], y.shape))
    return ALONG[operation.name](arrays[0], tangents[0], y, operation.dim)


PRODUCTS = ("mul", "matmul", "einsum")

ELEMENTWISE: dict[str, Callable[[Array, Array], Any]] = {
    "exp": lambda x, y: np.exp(x),
    "expm1": lambda x, y: np.exp(x),
    "log": lambda x, y: 1 / x,
    "log1p": lambda x, y: 1 / (1 + x),
    "sqrt": lambda x, y: 0.5 / np.sqrt(x),
    "rsqrt": lambda x, y: -0.5 * x**-1.5,
    "tanh": lambda x, y: 1 / np.cosh(x) ** 2,
    "sigmoid": lambda x, y: 0.25 / np.cosh(x / 2) ** 2,
    "relu": lambda x, y: x > 0,
    "erf": lambda x, y: 2 / sqrt(pi) * np.exp(-(x**2)),
    "sin": lambda x, y: np.cos(x),
    "cos": lambda x, y: -np.sin(x),
    "abs": lambda x, y: np.sign(x),
    "clip": lambda x, y: x == y,
}
"""dy/dx, from x and y."""

Slope: TypeAlias = Callable[[], Any]
OF_TWO: dict[str, Callable[[Array, Array, Array], tuple[Slope, Slope]]] = {
    "div": lambda a, b, y: (lambda: 1 / b, lambda: -a / b**2),
    "pow": lambda a, p, y: (
        lambda: np.where(p == 0, 0, p * np.power(a, p - 1)),
        lambda: np.where((a == 0) & (p >= 0), 0, y * np.log(a)),
    ),
    "maximum": lambda a, b, y: (
        lambda: np.where(a == b, 0.5, a > b),
        lambda: np.where(a == b, 0.5, a < b),
    ),
}
"""dy/da and dy/db, from a, b and y; computed where that one moves."""


def _softmax(x: Array, t: Array, y: Array, dim: Any) -> Any:
    return y * t - y * (y * t).sum(axis=dim, keepdims=True)


def _log_softmax(x: Array, t: Array, y: Array, dim: Any) -> Any:
    return t - (np.exp(y) * t).sum(axis=dim, keepdims=True)


def _logsumexp(x: Array, t: Array, y: Array, dim: Any) -> Any:
    shares = np.exp(x - x.max(axis=dim, keepdims=True))
    moved = (shares * t).sum(axis=dim) / shares.sum(axis=dim)
    return moved.reshape(y.shape)


def _amax(x: Array, t: Array, y: Array, dim: Any) -> Any:
    largest = x == x.max(axis=dim, keepdims=True)
    return ((largest * t).sum(axis=dim) / largest.sum(axis=dim)).reshape(y.shape)


ALONG: dict[str, Callable[[Array, Any, Array, Any], Any]] = {
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "amax": _amax,
}
"""dy, from x, dx, y and the dimensions that are looked along."""
