"""Singular values, A = U diag(s) V^T: every matrix rotates, scales the axes and rotates again.

The number of nonzero scales is the rank, inverting them gives the pseudo-inverse, and the ratio of
the largest to the smallest is the condition number.

GVL: Golub and Van Loan (2013), "Matrix computations", 4th edition.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Integer, Real

from groundup.maths.linalg.orthogonal import qr
from groundup.maths.linalg.precision import (
    EPS,
    TINY,
    as_matrix,
    length,
    like,
    precision_of,
    scaled,
)

MAX_SWEEPS = 60  # sweeps of Jacobi's method; about 10 usually suffice


def svd(
    a: Real[np.ndarray, "m n"], *, full: bool = False
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, "r"], Float[np.ndarray, "l n"]]:
    """Factors A = U diag(s) V^T: rotate by V^T, scale the axes by s, rotate by U.

    U (m x r) and V (n x r) have orthonormal columns, s is descending and not negative, and
    r = min(m, n). With `full`, U is m x m and V n x n, completed to bases of the whole space.

    One-sided Jacobi: rotate pairs of columns until all are orthogonal. Their lengths are then s,
    their directions U, and the product of the rotations V. Small singular values keep their leading
    digits if scaling A's columns would make it well conditioned. About ten sweeps over all pairs
    suffice: a second for 200 columns, half a minute for 500.
    Sources: Hestenes (1958), "Inversion of matrices by biorthogonalization"; Demmel and Veselic
    (1992), "Jacobi's method is more accurate than QR"; GVL, section 8.6.
    """
    x, scale = scaled(as_matrix(a))
    m, n = x.shape
    if m < n:
        v, s, ut = svd(x.T, full=full)
        return like(ut.T, a), like(s * scale, a), like(v.T, a)
    q, r = qr(x)  # first, so that columns have n entries, however large m is
    turned, v = _jacobi(r)
    s = np.array([length(column) for column in turned.T])
    order = np.argsort(-s, kind="stable")
    s, turned, v = s[order], turned[:, order], v[:, order]
    s[s < TINY] = 0
    found = int(np.count_nonzero(s))
    u = np.zeros((m, m if full else n))
    u[:, :found] = q @ (turned[:, :found] / s[:found])
    if found < u.shape[1]:
        u = qr(u)[0]  # replaces each zero column by a missing direction
    return like(u, a), like(s * scale, a), like(v.T, a)


def _jacobi(
    a: Float[np.ndarray, "m n"],
) -> tuple[Float[np.ndarray, "m n"], Float[np.ndarray, "n n"]]:
    """Rotates A's columns by an orthogonal V until they are orthogonal; returns A V and V.

    Two columns x, y become c (x - t y), c (y + t x), with c = 1 / sqrt(1 + t^2). They are
    orthogonal for x.y t^2 + (y.y - x.x) t - x.y = 0; the smaller root t changes them less.
    Disjoint pairs are rotated at once.
    """
    m, n = a.shape
    rows = np.hstack([a.T, np.eye(n)])  # the columns of A V and V as rows, side by side
    for _ in range(MAX_SWEEPS):
        settled = True
        for i, j in _rounds(n):
            x, y = rows[i, :m], rows[j, :m]
            xx, yy, xy = (x * x).sum(axis=1), (y * y).sum(axis=1), (x * y).sum(axis=1)
            oblique = np.abs(xy) > math.sqrt(m) * EPS * np.sqrt(xx) * np.sqrt(yy)
            oblique &= np.minimum(xx, yy) > TINY**2
            if not oblique.any():
                continue
            settled, i, j = False, i[oblique], j[oblique]
            half, part = (yy - xx)[oblique, None] / 2, xy[oblique, None]
            t = part / (half + np.copysign(np.hypot(half, part), half))
            c = 1 / np.hypot(1, t)
            rows[i], rows[j] = c * (rows[i] - t * rows[j]), c * (rows[j] + t * rows[i])
        if settled:
            return rows[:, :m].T, rows[:, m:].T
    raise ValueError(
        f"Jacobi's method did not converge in {MAX_SWEEPS} sweeps; scale the columns alike"
    )


def _rounds(n: int) -> Iterator[tuple[Integer[np.ndarray, "p"], Integer[np.ndarray, "p"]]]:
    """Pairs each of n numbers with each other once, in rounds of disjoint pairs (round-robin)."""
    seats = np.arange(n + n % 2)
    for _ in range(len(seats) - 1):
        one, other = seats[: len(seats) // 2], seats[: len(seats) // 2 - 1 : -1]
        present = np.maximum(one, other) < n  # for odd n, the partner of the dummy n pauses
        yield one[present], other[present]
        seats[1:] = np.roll(seats[1:], 1)  # the first stays and all others move by one


def matrix_rank(a: Real[np.ndarray, "m n"], rtol: float | None = None) -> int:
    """Counts the independent columns: the singular values above rtol times the largest.

    rtol is by default max(m, n) times the machine epsilon of A's floating-point type, about the
    effect of rounding A's entries.
    """
    return numerical_rank(svd(scaled(as_matrix(a))[0])[1], a, rtol)


def numerical_rank(s: Float[np.ndarray, "r"], a: np.ndarray, rtol: float | None = None) -> int:
    """The rank of a matrix a with singular values s, by the same rule."""
    if rtol is None:
        rtol = max(np.shape(a)) * float(np.finfo(precision_of(a)).eps)
    return int(np.count_nonzero(s > rtol * s[0]))


def pinv(a: Real[np.ndarray, "m n"], rtol: float | None = None) -> Float[np.ndarray, "n m"]:
    """Gives the pseudo-inverse A^+ = V diag(1/s) U^T; A^+ b is the shortest least-squares solution.

    Singular values that `matrix_rank` does not count are left out.
    Source: Penrose (1955), "A generalized inverse for matrices".
    """
    x, scale = scaled(as_matrix(a))  # singular values of large matrices may overflow
    u, s, vt = svd(x)
    rank = numerical_rank(s, a, rtol)
    return like((vt[:rank].T / s[:rank]) @ u[:, :rank].T / scale, a)


def cond(a: Real[np.ndarray, "m n"]) -> float:
    """Gives the condition number s_1 / s_r, the most that a relative error in b grows in A x = b.

    It is 1 for an orthogonal matrix and inf for a singular one; about log10(cond) digits are lost.
    """
    s = svd(scaled(as_matrix(a))[0])[1]
    return float(s[0] / s[-1]) if s[-1] > 0 else float("inf")
