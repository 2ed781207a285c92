"""NumPy arrays for the tensor: conversion of numbers and lists, indices, and shape errors."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Shape: TypeAlias = tuple[int, ...]


class ShapeError(ValueError):
    """An operation does not support these shapes; the message names all of them."""


def as_array(data: Any) -> Array:
    """Return arrays and tensors as they are; Python numbers and lists become float64."""
    if hasattr(data, "__array__"):
        return np.asarray(data)
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise ShapeError(f"lists within a list must have equal lengths: {error}") from None
    return array.astype(np.float64) if array.dtype.kind in "iu" else array


def array_index(index: Any) -> Any:
    """Return an index for NumPy, with tensors and lists replaced by copies as arrays.

    They are copies because the backward pass needs the index unchanged.
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
        raise IndexError(f"an index holds integers or booleans, not {array.dtype}")
    return array


def index_in_steps(index: Any) -> tuple[Any, ...]:
    """Split an index from `array_index` into the indices to apply one after the other.

    Integers next to arrays are applied first, as in torch. NumPy would treat them as arrays and
    move the selected dimensions in front of the dimensions between them.
    """
    parts = index if isinstance(index, tuple) else (index,)
    arrays = [part for part in parts if isinstance(part, np.ndarray) and part.ndim]
    if not arrays or not any(map(_is_integer, parts)):
        return (index,)
    first: list[Any] = []
    then: list[Any] = []
    for part in parts:
        if _is_integer(part):
            first.append(int(part))
        elif isinstance(part, np.ndarray):
            # A mask indexes as many dimensions as it has.
            first += [slice(None)] * (part.ndim if part.dtype.kind == "b" else 1)
            then.append(part)
        else:
            first.append(part)
            then.append(part if part is Ellipsis else slice(None))
    return tuple(first), tuple(then)


def _is_integer(part: Any) -> bool:
    if isinstance(part, np.ndarray):
        return part.ndim == 0 and part.dtype.kind in "iu"
    return isinstance(part, (int, np.integer)) and not isinstance(part, bool)
