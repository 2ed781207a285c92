"""Forward mode: derivatives computed along with the values, by dual numbers.

A dual number is a pair (x, t) of a value and its tangent, the rate at which it changes. Arithmetic
on pairs follows from f(x + ε t) = f(x) + ε f'(x) t with ε² = 0 (Clifford 1873; Wengert 1964, for
programs), for example

    (x, t) · (y, u) = (x y, t y + x u).

One run gives the value of f and its directional derivative J t, the Jacobian times a vector. One
backward sweep gives g J, a vector times the Jacobian. Forward mode does not use the rules of the
reverse mode, so each checks the other: g · (J t) = (g J) · t.

Three kinds of rules are enough. A linear map is applied to tangents as to values. A product of
several factors varies one factor at a time. The other derivatives are in the tables below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from math import pi, sqrt
from typing import Any, TypeAlias

import numpy as np

from groundup.maths.arrays import Array, ShapeError
from groundup.maths.tensor import GradientError, Operation, Tensor, observers

_tangents: ContextVar[dict[int, tuple[Array, int]] | None] = ContextVar("tangents", default=None)
"""The tangents computed so far, each with the version of its tensor, by `Tensor.number`."""


def jvp(
    function: Callable[..., Any],
    primals: Tensor | Sequence[Tensor],
    tangents: Any,
) -> tuple[Any, Any]:
    """Return `function(*primals)` and its derivative in the direction of `tangents`.

    `function` returns a tensor or a tuple of tensors, and both results have that form. Each tangent
    has the shape of its primal; a single primal and its tangent need no list. A gradient taken
    inside `function` has a tangent too: the Hessian times a vector (forward over reverse). Raises
    `GradientError` for a tensor that is given twice or changed in place, and for nested `jvp`.
    """
    if isinstance(primals, Tensor):
        return jvp(function, (primals,), (primals.as_operand(tangents),))
    if _tangents.get() is not None:
        raise GradientError("jvp cannot be nested; compute the inner derivative by grad()")
    if len({primal.number for primal in primals}) < len(primals):
        raise GradientError("a tensor is given twice, with two tangents; give a clone() of it")
    known: dict[int, tuple[Array, int]] = {}
    for primal, tangent in zip(primals, list(tangents), strict=True):
        direction = primal.as_operand(tangent).to(primal.dtype).data
        if direction.shape != primal.shape:
            raise ShapeError(f"a tangent of shape {direction.shape} is not one for {primal.shape}")
        known[primal.number] = direction, primal._version
    outside = _tangents.set(known), observers.set((*observers.get(), _push_forward))
    try:
        value = function(*primals)
        if isinstance(value, Tensor):
            return value, Tensor.from_numpy(_tangent_of(known, value))
        return value, tuple(Tensor.from_numpy(_tangent_of(known, tensor)) for tensor in value)
    finally:
        _tangents.reset(outside[0])
        observers.reset(outside[1])


def _push_forward(operation: Operation, out: Tensor) -> None:
    """Compute the tangent of an operation's result, if a parent has one."""
    known = _tangents.get()
    assert known is not None
    parts = [
        _tangent_of(known, parent) if parent.number in known else None
        for parent in operation.parents
    ]
    if any(part is not None for part in parts) and out.dtype.kind == "f":
        with np.errstate(all="ignore"):
            tangent = np.asarray(_derivative(operation, parts, out.data), dtype=out.dtype)
        known[out.number] = tangent, out._version


def _tangent_of(known: dict[int, tuple[Array, int]], tensor: Tensor) -> Array:
    if tensor.number not in known:
        return np.zeros_like(tensor.data)
    tangent, version = known[tensor.number]
    if tensor._version != version:
        raise GradientError(
            f"a tensor of shape {tensor.shape} was changed in place, so its tangent is unknown"
        )
    return tangent


def _derivative(operation: Operation, tangents: list[Array | None], y: Array) -> Any:
    """Return the tangent of the result y from those of the parents, None for zero tangents."""
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
    if operation.name in BINARY:
        slopes = BINARY[operation.name](arrays[0], arrays[1], y)
        terms = [slope() * t for slope, t in zip(slopes, tangents, strict=True) if t is not None]
        return sum(terms[1:], start=np.broadcast_to(terms[0], y.shape))
    return REDUCTIONS[operation.name](arrays[0], tangents[0], y, operation.dim)


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
BINARY: dict[str, Callable[[Array, Array, Array], tuple[Slope, Slope]]] = {
    "div": lambda a, b, y: (lambda: 1 / b, lambda: -y / b),
    "pow": lambda a, p, y: (
        lambda: np.where(p == 0, 0, p * np.power(a, p - 1)),
        lambda: np.where((a == 0) & (p >= 0), 0, y * np.log(a)),
    ),
    "maximum": lambda a, b, y: (
        lambda: np.where(a == b, 0.5, ~(a < b)),
        lambda: np.where(a == b, 0.5, ~(b < a)),
    ),
    "logaddexp": lambda a, b, y: (
        lambda: 1 / (1 + np.exp(b - a)),
        lambda: 1 / (1 + np.exp(a - b)),
    ),
    "minimum": lambda a, b, y: (
        lambda: np.where(a == b, 0.5, ~(a > b)),
        lambda: np.where(a == b, 0.5, ~(b > a)),
    ),
}
"""dy/da and dy/db, from a, b and y; computed only for operands with a tangent."""


def _softmax(x: Array, t: Array, y: Array, dim: Any) -> Any:
    return y * t - y * (y * t).sum(axis=dim, keepdims=True)


def _log_softmax(x: Array, t: Array, y: Array, dim: Any) -> Any:
    return t - (np.exp(y) * t).sum(axis=dim, keepdims=True)


def _logsumexp(x: Array, t: Array, y: Array, dim: Any) -> Any:
    peak = np.max(x, axis=dim, keepdims=True, initial=-np.inf)
    shares = np.exp(x - peak)
    return ((shares * t).sum(axis=dim) / shares.sum(axis=dim)).reshape(y.shape)


def _extremum(best: Callable[..., Any]) -> Callable[[Array, Array, Array, Any], Any]:
    def mean_of_equals(x: Array, t: Array, y: Array, dim: Any) -> Any:
        equal = x == best(x, axis=dim, keepdims=True)
        return ((equal * t).sum(axis=dim) / equal.sum(axis=dim)).reshape(y.shape)

    return mean_of_equals


REDUCTIONS: dict[str, Callable[[Array, Any, Array, Any], Any]] = {
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "amax": _extremum(np.max),
    "amin": _extremum(np.min),
}
"""dy, from x, dx, y and the reduced dimensions."""
