"""Checks gradients against finite differences.

    df/dx_i ≈ (f(x + h e_i) - f(x - h e_i)) / 2h

The central difference has an error of order h² (the third derivative) and a rounding error of about
1e-16 / h; with h = 1e-6 both are far below the tolerance in float64. float32 is too imprecise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from groundup.maths.arrays import Array
from groundup.maths.derivatives import jacobian
from groundup.maths.forward import jvp
from groundup.maths.ops import cat
from groundup.maths.tensor import GradientError, Tensor, grad, set_grad_enabled


@set_grad_enabled(True)
def gradcheck(
    function: Callable[..., Tensor],
    *inputs: Any,
    eps: float = 1e-6,
    rtol: float = 1e-3,
    atol: float = 1e-5,
    forward: bool = True,
) -> bool:
    """Check that the gradients of `function` agree with central differences of step `eps`.

    Inputs that require gradients are checked and must be float64; others are passed on. Like in
    torch, they may also be given as one tuple. Every entry of the Jacobian is checked, by the
    reverse mode and, with `forward`, by dual numbers. Returns True, or raises `GradientError` that
    names the worst entry, or says that no input requires a gradient.
    """
    inputs = _unpacked(inputs)
    if not list(_checked(inputs)):
        raise GradientError("no input requires a gradient, so there is nothing to check")
    for number, x in _checked(inputs):
        if x.dtype != np.float64:
            raise GradientError(f"input {number} is {x.dtype}; a check needs float64")
    for number, x in _checked(inputs):
        truth = numerical_jacobian(function, inputs, number, eps)
        of_one = _of_one(function, inputs, number)
        found = {"gradient": jacobian(of_one, x).data.reshape(truth.shape)}
        if forward:
            found["tangent"] = _forward(of_one, x)
        for kind, entries in found.items():
            wrong = np.abs(entries - truth) - (atol + rtol * np.abs(truth))
            if not (wrong <= 0).all():  # NaN is wrong as well
                row, column = np.unravel_index(
                    np.nan_to_num(wrong, nan=np.inf).argmax(), wrong.shape
                )
                raise GradientError(
                    f"the {kind} of output {row} by element {column} of input {number} "
                    f"(shape {x.shape}) is {entries[row, column]:.6g}, and a small step gives "
                    f"{truth[row, column]:.6g}"
                )
    return True


@set_grad_enabled(True)
def gradgradcheck(function: Callable[..., Tensor], *inputs: Any, **settings: Any) -> bool:
    """Run `gradcheck` on the gradients themselves, for a random direction of the output."""
    inputs = _unpacked(inputs)
    direction = np.random.default_rng(0).normal(size=function(*inputs).shape)

    def gradients(*values: Any) -> Tensor:
        wanted = [x for _, x in _checked(values)]
        found = grad((function(*values) * direction).sum(), wanted, create_graph=True)
        return cat([gradient.reshape(-1) for gradient in found])

    return gradcheck(gradients, *inputs, **settings)


def _unpacked(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(inputs[0]) if len(inputs) == 1 and isinstance(inputs[0], (tuple, list)) else inputs


def _checked(inputs: tuple[Any, ...]) -> list[tuple[int, Tensor]]:
    """Return the inputs that require gradients, with their positions."""
    return [(n, x) for n, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]


def numerical_jacobian(
    function: Callable[..., Tensor], inputs: tuple[Any, ...], number: int, step: float = 1e-6
) -> Array:
    """df/dx by central differences: one row per element of f, one column per element of x."""
    columns = []
    for i in range(inputs[number].numel()):
        ends = []
        for sign in (1, -1):
            moved = inputs[number].data.copy()
            moved.reshape(-1)[i] += sign * step
            values = [Tensor(moved) if n == number else x for n, x in enumerate(inputs)]
            ends.append(function(*values).data.reshape(-1))
        columns.append((ends[0] - ends[1]) / (2 * step))
    outputs = function(*inputs).numel()
    return np.stack(columns, axis=1) if columns else np.zeros((outputs, 0))


def _of_one(
    function: Callable[..., Tensor], inputs: tuple[Any, ...], number: int
) -> Callable[[Tensor], Tensor]:
    """Return the function of one of its inputs, with the others fixed."""
    return lambda value: function(*inputs[:number], value, *inputs[number + 1 :])


def _forward(function: Callable[[Tensor], Tensor], x: Tensor) -> Array:
    """Compute the Jacobian by one run with dual numbers per element of the input."""
    columns = [
        jvp(function, x, direction.reshape(x.shape))[1].data.reshape(-1)
        for direction in np.eye(x.numel())
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((function(x).numel(), 0))
