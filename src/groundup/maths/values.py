"""The array inside a tensor: what it holds, how it reads and how it compares. No derivatives here.

`maths.autograd.Tensor` adds the history that gradients need.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

import numpy as np

from groundup.errors import UserError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Shape: TypeAlias = tuple[int, ...]
Operand: TypeAlias = "Values | Array | np.generic | float | Sequence[Any]"
"""What can stand beside a tensor in arithmetic and comparisons."""


OPERATORS: dict[np.ufunc, Callable[[Any, Any], Any]] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.true_divide: operator.truediv,
    np.power: operator.pow,
    np.matmul: operator.matmul,
    np.equal: operator.eq,
    np.not_equal: operator.ne,
    np.less: operator.lt,
    np.less_equal: operator.le,
    np.greater: operator.gt,
    np.greater_equal: operator.ge,
}
"""What NumPy asks for when an array stands on the left of a tensor."""


class ShapeError(UserError, ValueError):
    """Shapes that an operation cannot take; the message names all of them."""


class Values:
    """A NumPy array under the names that torch has for what one asks of it."""

    __slots__ = ("_array", "changes")

    _array: Array
    changes: list[int]
    """How often it was changed in place, in a list that is shared with views of its memory."""

    @classmethod
    def made(cls, array: Any, changes: list[int] | None = None) -> Self:
        """A constant around an array that is ours, without a copy."""
        values = cls.__new__(cls)
        values._array = np.asarray(array)
        values.changes = [0] if changes is None else changes
        return values

    def like(self, other: Operand) -> Self:
        """`other` as an operand beside this one: a plain number takes its floating dtype."""
        if isinstance(other, type(self)):
            return other
        if isinstance(other, (int, float, np.generic)) and self.dtype.kind == "f":
            return self.made(np.asarray(other, dtype=self.dtype))
        # Beside whole numbers NumPy's own rules hold: 2 stays whole and 2.5 makes a float.
        return self.made(other if isinstance(other, int) else as_array(other))

    @property
    def data(self) -> Array:
        """The array itself, without history. Assigning to it counts as a change in place.

        Writing into the array (`x.data[0] = 1`) is as free of checks as it is in torch;
        `x[0] = 1` is checked.
        """
        return self._array

    @data.setter
    def data(self, value: Operand) -> None:
        self._array = np.asarray(self.like(value)._array, dtype=self.dtype)
        self.changes[0] += 1

    @property
    def shape(self) -> Shape:
        shape: Shape = self._array.shape
        return shape

    @property
    def ndim(self) -> int:
        return self._array.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._array.dtype

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of one dimension."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return self.ndim

    def numel(self) -> int:
        return int(self._array.size)

    def item(self) -> Any:
        """The one number of a tensor of one element, as Python's own."""
        if self._array.size != 1:
            raise ShapeError(
                f"one number is asked for and this tensor has shape {self.shape}; "
                "index it, or reduce it by sum() or mean()"
            )
        return self._array.item()

    def numpy(self) -> Array:
        return self._array

    def tolist(self) -> Any:
        return self._array.tolist()

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """Where the largest value stands: in the flattened tensor, or along `dim`."""
        return self.made(np.argmax(self._array, axis=dim, keepdims=keepdim))

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """Where the smallest value stands: in the flattened tensor, or along `dim`."""
        return self.made(np.argmin(self._array, axis=dim, keepdims=keepdim))

    def all(self) -> Self:
        return self.made(self._array.all())

    def any(self) -> Self:
        return self.made(self._array.any())

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a tensor without dimensions has no length")
        return self.shape[0]

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return self._array.__index__()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and not self.shape else format(str(self), spec)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self._array, dtype=dtype, copy=copy)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: tuple[Array, ...] = ()
    ) -> Any:
        """`array * tensor` is for the tensor to answer; `array -= tensor` changes the array.

        Other functions of NumPy would lose the gradient, so they are TypeErrors.
        """
        if method != "__call__" or ufunc not in OPERATORS:
            return NotImplemented
        if out:
            return ufunc(*(as_array(x) for x in inputs), out=out)
        return OPERATORS[ufunc](self.like(inputs[0]), inputs[1])

    def __eq__(self, other: object) -> Self:  # type: ignore[override]  # one truth per element
        if not isinstance(other, (Values, np.ndarray, np.generic, int, float, list, tuple)):
            return NotImplemented
        return self._compared(np.equal, other)

    def __ne__(self, other: object) -> Self:  # type: ignore[override]
        if not isinstance(other, (Values, np.ndarray, np.generic, int, float, list, tuple)):
            return NotImplemented
        return self._compared(np.not_equal, other)

    def __lt__(self, other: Operand) -> Self:
        return self._compared(np.less, other)

    def __le__(self, other: Operand) -> Self:
        return self._compared(np.less_equal, other)

    def __gt__(self, other: Operand) -> Self:
        return self._compared(np.greater, other)

    def __ge__(self, other: Operand) -> Self:
        return self._compared(np.greater_equal, other)

    def __and__(self, other: Operand) -> Self:
        return self._compared(np.bitwise_and, other)

    def __or__(self, other: Operand) -> Self:
        return self._compared(np.bitwise_or, other)

    def _compared(self, by: np.ufunc, other: Operand) -> Self:
        beside = self.like(other)
        try:
            return self.made(by(self._array, beside._array))
        except ValueError:
            raise ShapeError(
                f"shapes {self.shape} and {beside.shape} cannot be compared; "
                "lengths must be equal or 1, counted from the last dimension"
            ) from None

    def __invert__(self) -> Self:
        return self.made(~self._array)

    __hash__ = object.__hash__


def as_array(data: Any) -> Array:
    """Arrays as they are; Python's numbers, and lists of them, as float64."""
    if isinstance(data, Values):
        return data._array
    if isinstance(data, (np.ndarray, np.generic)):
        return np.asarray(data)
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ShapeError(f"lists within a list must have equal lengths: {error}") from None
    return array.astype(np.float64) if array.dtype.kind in "iu" else array


def array_index(index: Any) -> Any:
    """An index as NumPy takes it, with arrays in the place of tensors and lists.

    The arrays are copies, since the way back needs the index as it was.
    """
    return tuple(map(_part, index)) if isinstance(index, tuple) else _part(index)


def _part(index: Any) -> Any:
    if isinstance(index, (Values, np.ndarray)):
        places = np.array(as_array(index))
        if places.dtype.kind == "f":
            raise IndexError(
                f"an index holds integers or truth values, not {places.dtype}; use .long()"
            )
        return places
    if isinstance(index, (list, tuple, range)):
        places = np.array(index)
        return places if places.size else places.astype(np.int64)
    return index
