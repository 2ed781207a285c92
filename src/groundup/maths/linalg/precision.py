"""Working precision: inputs of any real dtype, computation in float64, and results in float64, or
in float32 if all inputs are float32.

It also has rounding constants and functions to square very large or small numbers safely.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float, Real

EPS = float(np.finfo(np.float64).eps)  # the spacing of float64 at 1, about 2.2e-16
# Negligible next to a largest entry between 1 and 2; squares of smaller numbers could underflow.
TINY = 1e-140


def as_floats(a: Real[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return a float64 copy of a vector or matrix."""
    given = _array(a)
    if given.ndim not in (1, 2) or given.size == 0:
        raise ValueError(f"shape {given.shape}; give 1 or 2 axes of at least one number")
    if given.dtype.kind not in "fiu":
        raise ValueError(f"an array of {given.dtype}; give real numbers")
    x = given.astype(np.float64)
    if not np.isfinite(x).all():
        where = tuple(np.argwhere(~np.isfinite(x))[0].tolist())
        raise ValueError(f"the entry at {where} is {x[where]}; give finite numbers")
    return x


def as_matrix(a: Real[np.ndarray, "m n"]) -> Float[np.ndarray, "m n"]:
    """Return a float64 copy of a matrix; a vector is refused, as it could be a row or a column."""
    shape = _array(a).shape
    if len(shape) != 2:
        raise ValueError(f"shape {shape} is not a matrix; give two axes, as a[:, None] has")
    return as_floats(a)


def as_square(a: Real[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Return a float64 copy of a square matrix."""
    x = as_matrix(a)
    if x.shape[0] != x.shape[1]:
        raise ValueError(f"shape {x.shape} is not square; give as many rows as columns")
    return x


def as_right_side(
    a: Real[np.ndarray, "m *n"], b: Real[np.ndarray, "m *k"]
) -> Float[np.ndarray, "m *k"]:
    """Return a float64 copy of the right side b, which must have as many rows as a."""
    x, shape = as_floats(b), np.shape(a)
    if len(x) != shape[0]:
        raise ValueError(f"shapes {shape} and {x.shape} do not match; give as many rows in both")
    return x


def _array(a: Real[np.ndarray, "*shape"]) -> Real[np.ndarray, "*shape"]:
    """Convert lists to arrays; signatures annotate only arrays, so that they can show shapes."""
    try:
        return np.asarray(a)
    except ValueError as error:
        raise ValueError(f"lists within a list must have equal lengths: {error}") from None


def precision_of(*given: np.ndarray) -> np.dtype[Any]:
    """Return float32 if all given arrays are float32, else float64."""
    single = all(np.asarray(array).dtype == np.float32 for array in given)
    return np.dtype(np.float32 if single else np.float64)


def like(result: Float[np.ndarray, "*shape"], *given: np.ndarray) -> Float[np.ndarray, "*shape"]:
    """Return the result in the precision of the given arrays."""
    return result.astype(precision_of(*given), copy=False)


def scaled(a: Float[np.ndarray, "m n"]) -> tuple[Float[np.ndarray, "m n"], float]:
    """Return a / scale and scale, a power of two that makes the largest entry between 1 and 2.

    Nothing is rounded, and squares can neither overflow nor underflow.
    """
    _, exponent = math.frexp(np.abs(a).max())
    scale = math.ldexp(1.0, exponent - 1)
    return a / scale, scale


def length(v: Float[np.ndarray, "n"]) -> float:
    """sqrt(sum v_i^2), without overflow or underflow."""
    largest = float(np.abs(v).max(initial=0.0))
    return largest * math.sqrt(np.square(v / largest).sum()) if largest > 0 else 0.0
