"""NumPy arrays as the tensor takes them: from numbers and lists, as an index, and their shapes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Shape: TypeAlias = tuple[int, ...]


class ShapeError(ValueError):
    """Shapes that an operation cannot take; the message names all of them."""


def as_array(data: Any) -> Array:
    """Arrays and tensors as they are; Python's numbers, and lists of them, as float64."""
    if hasattr(data, "__array__"):
        return np.asarray(data)
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ShapeError(f"lists within a list must have equal lengths: {error}") from None
    return array.astype(np.float64) if array.dtype.kind in "iu" else array


def array_index(index: Any) -> Any:
    """An index as NumPy takes it, with copies of arrays in the place of tensors and lists.

    Copies, since the way back needs the index as it was.
    """
    if isinstance(index, tuple):
        return tuple(_array_index(part) for part in index)
    return _array_index(index)


def _array_index(index: Any) -> Any:
    if isinstance(index, (list, tuple, range)):
        array = np.array(index)
        return array if array.size else array.astype(np.int64)
    if not hasattr(index, "__array__") or isinstance(index, np.generic):
        return index
    array = np.array(as_array(index))
    if array.dtype.kind == "f":
        raise IndexError(f"an index holds integers or truth values, not {array.dtype}")
    return array
