"""Where the part of 1.1 enters the product: the limit that checks every gradient rule."""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import replaced
from groundup.maths.arrays import Array
from groundup.maths.tensor import Tensor

USED_BY = "groundup.maths.gradcheck, which checks the rules of every operation"

# The package has a function of the same name.
_PAGE = importlib.import_module("groundup.maths.gradcheck")


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """The part computes each column of the Jacobian that checks the rules."""

    def numerical_jacobian(
        function: Callable[..., Tensor], inputs: tuple[Any, ...], number: int, step: float = 1e-6
    ) -> Array:
        x = inputs[number].data
        columns = []
        for i in range(x.size):

            def moved(value: float, i: int = i) -> Array:
                at = x.copy()
                at.reshape(-1)[i] = value
                values = [Tensor(at) if n == number else v for n, v in enumerate(inputs)]
                return function(*values).data.reshape(-1)

            columns.append(part.by_limit(moved, float(x.reshape(-1)[i]), step))
        outputs = function(*inputs).numel()
        return np.stack(columns, axis=1) if columns else np.zeros((outputs, 0))

    return replaced(_PAGE, "numerical_jacobian", numerical_jacobian)


def try_it() -> list[float]:
    """The Jacobian of a small function by limits, and a check that uses it."""
    inputs = (Tensor(np.array([[0.5, -1.0], [2.0, 0.3]])),)

    def function(x: Tensor) -> Tensor:
        return (x @ x).tanh()

    assert _PAGE.gradcheck(function, *inputs)
    found: list[float] = _PAGE.numerical_jacobian(function, inputs, 0).ravel().tolist()
    return found
