"""Norms of vectors and matrices.

GVL: Golub and Van Loan (2013), "Matrix computations", 4th edition.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Real

from groundup.maths.linalg.precision import as_floats, length
from groundup.maths.linalg.singular_values import svd


def norm(
    a: Real[np.ndarray, "n"] | Real[np.ndarray, "m n"], ord: float | str | None = None
) -> float:
    """Gives a norm of a vector or a matrix.

    Vectors:   1: sum |a_i|   2, the default: sqrt(sum a_i^2)   inf: max |a_i|
    Matrices:  the same three as the largest factor by which A stretches a vector, max |A x| / |x|:
               1: largest column sum of |a_ij|   2 (spectral): largest singular value
               inf: largest row sum of |a_ij|
               "fro", the default: sqrt(sum a_ij^2) = sqrt(sum s_i^2)   "nuc": sum s_i
    Errors: `ValueError` for another `ord`. Source: GVL, sections 2.2, 2.3.
    """
    x = as_floats(a)
    match x.ndim, ord:
        case (1, None | 2) | (2, None | "fro"):
            return length(x.ravel())
        case 1, 1:
            return float(np.abs(x).sum())
        case 1, np.inf:
            return float(np.abs(x).max())
        case 2, 1:
            return float(np.abs(x).sum(axis=0).max())
        case 2, np.inf:
            return float(np.abs(x).sum(axis=1).max())
        case 2, 2:
            return float(svd(x)[1].max())
        case 2, "nuc":
            return float(svd(x)[1].sum())
    raise ValueError(
        f"ord={ord!r} is not a norm of an array of shape {x.shape}; "
        "give 1, 2 or inf, and for a matrix also 'fro' or 'nuc'"
    )
