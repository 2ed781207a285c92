"""Elimination, A[rows] = L U: solving linear equations, the inverse and the determinant.

GVL: Golub and Van Loan (2013), "Matrix computations", 4th edition.
"""

from __future__ import annotations

from math import frexp

import numpy as np
from jaxtyping import Float, Integer, Real

from groundup.maths.linalg.precision import EPS, as_right_side, as_square, like


def lu(
    a: Real[np.ndarray, "n n"],
) -> tuple[Integer[np.ndarray, "n"], Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    """Gaussian elimination with partial pivoting: A[rows] = L U.

    L is lower triangular with 1 on its diagonal and holds the multiples that were subtracted. U
    is the upper triangular result of elimination. Partial pivoting swaps the largest entry of each
    column up, which keeps |l_ij| <= 1, so errors grow little. `rows` has the original index of
    each row. A singular matrix has factors too, with a zero on U's diagonal.
    Errors: `ValueError` for a matrix that is not square. Source: GVL, section 3.4.
    """
    u = as_square(a)
    n = len(u)
    rows = np.arange(n)
    for k in range(n):
        pivot = k + int(np.argmax(np.abs(u[k:, k])))
        u[[k, pivot]], rows[[k, pivot]] = u[[pivot, k]], rows[[pivot, k]]
        if u[k, k] != 0:
            u[k + 1 :, k] /= u[k, k]  # L is stored in place of the zeros
            u[k + 1 :, k + 1 :] -= np.outer(u[k + 1 :, k], u[k, k + 1 :])
    return rows, like(np.tril(u, -1) + np.eye(n), a), like(np.triu(u), a)


def solve(a: Real[np.ndarray, "n n"], b: Real[np.ndarray, "n *k"]) -> Float[np.ndarray, "n *k"]:
    """Solves A x = b for one right side, or for each column of b: L y = b[rows], then U x = y.

    Errors: `ValueError` for a matrix that is not square or is singular to working precision, and
    for another number of rows in b.
    """
    rows, lower, u = lu(as_square(a))
    right = as_right_side(a, b)
    # A pivot that cancelled down to rounding noise is a zero. The noise is measured by the sum of
    # the magnitudes that formed the pivot: diag(1, 1e-20) has no cancellation and is solved well.
    noise = len(u) * EPS * np.einsum("ij,ji->i", np.abs(lower), np.abs(u))
    if np.any(np.abs(np.diag(u)) <= noise):
        raise ValueError(
            f"the {len(u)} x {len(u)} matrix is singular to working precision, so its rows are "
            "linearly dependent; remove the dependence, or use pinv"
        )
    y = back_substitution(lower[::-1, ::-1], right[rows][::-1])[::-1]  # L reversed is upper
    return like(back_substitution(u, y), a, b)


def back_substitution(
    u: Float[np.ndarray, "n n"], b: Float[np.ndarray, "n *k"]
) -> Float[np.ndarray, "n *k"]:
    """Solves U x = b from the last equation up: x_i = (b_i - sum_j>i u_ij x_j) / u_ii."""
    x = np.zeros_like(b)
    for i in reversed(range(len(b))):
        x[i] = (b[i] - u[i, i + 1 :] @ x[i + 1 :]) / u[i, i]
    return x


def inv(a: Real[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Solves A X = I. To solve equations, use `solve`, which is faster and more accurate.

    Errors: `ValueError` for a matrix that is not square or is singular.
    """
    x = as_square(a)
    return like(solve(x, np.eye(len(x))), a)


def det(a: Real[np.ndarray, "n n"]) -> float:
    """Gives the signed factor by which A scales volumes: the product of U's diagonal.

    Each swap of rows in `lu` changes the sign. If the product overflows float64, it is inf.
    Errors: `ValueError` for a matrix that is not square.
    """
    rows, _, u = lu(as_square(a))
    inversions = np.count_nonzero(np.triu(rows[:, None] > rows))  # odd for an odd number of swaps
    # A separate exponent, so that 1e200 * 1e200 * 1e-300 is 1e100 and a thousand halves are not 0.
    product, exponent = float((-1) ** inversions), 0
    for pivot in np.diag(u):
        mantissa, power = frexp(pivot)
        product, carried = frexp(product * mantissa)
        exponent += power + carried
    with np.errstate(over="ignore"):
        return float(np.ldexp(product, exponent))
