"""Changes in place, and whether operations are recorded.

An optimizer writes new numbers into its parameters. That is never put on the tape, and a gradient
that still needs the old numbers would come out wrong. So changes are allowed only where nothing is
being recorded, and they are counted: the tape notes the count of every value it needs, and
`backward` refuses when it has moved on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Self

import numpy as np

from groundup.errors import UserError
from groundup.maths.values import Array, Operand, ShapeError, Values, array_index

_RECORDING = ContextVar("recording", default=True)


class GradientError(UserError, RuntimeError):
    """A gradient that cannot be had, or that would be wrong."""


@contextmanager
def recording(on: bool) -> Iterator[None]:
    """Put operations on the tape, or do not, within the block or the decorated function."""
    before = _RECORDING.set(on)
    try:
        yield
    finally:
        _RECORDING.reset(before)


def no_grad() -> AbstractContextManager[None]:
    """Leave the tape alone: `with no_grad():` or `@no_grad()`."""
    return recording(False)


def is_grad_enabled() -> bool:
    return _RECORDING.get()


class Changeable(Values):
    """Values that can be changed in place where nothing is recorded."""

    __slots__ = ("requires_grad",)

    requires_grad: bool

    def __setitem__(self, index: Any, value: Operand) -> None:
        self._change(array_index(index), value, lambda _, new: new)

    def copy_(self, other: Operand) -> Self:
        return self._change(..., other, lambda _, new: new)

    def zero_(self) -> Self:
        return self.copy_(0.0)

    def add_(self, other: Operand) -> Self:
        return self._change(..., other, np.add)

    def sub_(self, other: Operand) -> Self:
        return self._change(..., other, np.subtract)

    def mul_(self, other: Operand) -> Self:
        return self._change(..., other, np.multiply)

    def div_(self, other: Operand) -> Self:
        return self._change(..., other, np.true_divide)

    # Where nothing is recorded, w -= rate * w.grad changes w itself, as optimizers write it.
    # Otherwise Python falls back to w = w - ..., a new tensor.

    def __iadd__(self, other: Operand) -> Self:
        return NotImplemented if is_grad_enabled() else self.add_(other)

    def __isub__(self, other: Operand) -> Self:
        return NotImplemented if is_grad_enabled() else self.sub_(other)

    def __imul__(self, other: Operand) -> Self:
        return NotImplemented if is_grad_enabled() else self.mul_(other)

    def __itruediv__(self, other: Operand) -> Self:
        return NotImplemented if is_grad_enabled() else self.div_(other)

    def _change(self, index: Any, other: Operand, by: Callable[[Array, Array], Any]) -> Self:
        """Write `by(old, other)` over what stands at `index`."""
        new = self.like(other)
        if (self.requires_grad or new.requires_grad) and is_grad_enabled():
            raise GradientError(
                f"a change in place of a tensor of shape {self.shape} is not recorded, and "
                "gradients are required; compute a new tensor, or wrap the change in no_grad()"
            )
        try:
            with np.errstate(all="ignore"):
                self._array[index] = by(self._array[index], new._array)
        except ValueError as error:
            raise ShapeError(f"{new.shape} cannot go into shape {self.shape}: {error}") from None
        self.changes[0] += 1
        return self
