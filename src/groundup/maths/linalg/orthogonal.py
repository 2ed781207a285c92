"""Orthogonal bases, A = Q R: Q's columns are orthonormal and span the same space as A's.

There are two methods. Gram-Schmidt makes A orthogonal by triangular steps: it subtracts from each
column its components along earlier ones. Householder makes A triangular by orthogonal steps:
reflections, which cannot enlarge an error. The second is more accurate, also for eigenvalues.

GVL: Golub and Van Loan (2013), "Matrix computations", 4th edition.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real

from groundup.maths.linalg.elimination import back_substitution
from groundup.maths.linalg.precision import EPS, as_matrix, as_right_side, length, like


def gram_schmidt(
    a: Real[np.ndarray, "m n"], *, modified: bool = True
) -> tuple[Float[np.ndarray, "m n"], Float[np.ndarray, "n n"]]:
    """Factors A = Q R by subtracting from each column its components along earlier ones.

    r_ij = q_i . a_j,  q_j = (a_j - sum_i<j r_ij q_i) / r_jj,  r_jj the length of the remainder

    The modified form computes r_ij from the remainder of a_j instead of from a_j. In exact
    arithmetic this is equal, but then q_2, q_3, ... correct an error in q_1 instead of keeping it.
    With EPS = 2.2e-16 and condition number k the loss |Q^T Q - I| is about EPS k^2 in the classical
    form, EPS k in the modified one, and EPS in `qr`, which should be preferred.
    Errors: `ValueError` for dependent columns. Sources: Bjorck (1967), "Solving linear least
    squares problems by Gram-Schmidt orthogonalization"; Giraud et al. (2005) for the classical.
    """
    columns = as_matrix(a)
    m, n = columns.shape
    if n > m:
        raise ValueError(f"{n} columns of {m} numbers must be dependent; give at most {m}")
    q, r = np.zeros((m, n)), np.zeros((n, n))
    for j, column in enumerate(columns.T):
        rest = column
        for i in range(j):
            r[i, j] = q[:, i] @ (rest if modified else column)
            rest = rest - r[i, j] * q[:, i]
        r[j, j] = length(rest)
        if r[j, j] <= m * EPS * length(column):
            raise ValueError(f"column {j} depends on earlier columns; leave it out, or use qr")
        q[:, j] = rest / r[j, j]
    return like(q, a), like(r, a)


def qr(
    a: Real[np.ndarray, "m n"], *, full: bool = False
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, "k n"]]:
    """Factors A = Q R, Q with orthonormal columns, R upper triangular, by Householder.

    H_k ... H_2 H_1 A = R,  H = I - 2 v v^T,  v along x + sign(x_1) |x| e_1

    Each reflection H maps the rest of one column onto an axis, which creates zeros below it. k is
    min(m, n), or m with `full`. The diagonal of R is not negative, which makes the factors unique
    if the columns of A are independent.
    Source: Householder (1958), "Unitary triangularization of a nonsymmetric matrix"; GVL, 5.2.
    """
    r = as_matrix(a)
    m, n = r.shape
    k = min(m, n)
    normals = []
    for j in range(k):
        normals.append(reflector(r[j:, j]))
        reflect(r[j:, j:], normals[j])
    q = np.eye(m, m if full else k)
    for j in reversed(range(k)):
        reflect(q[j:, j:], normals[j])
    signs = np.where(np.diag(r) < 0, -1.0, 1.0)
    q[:, :k] *= signs
    r[:k] *= signs[:, None]
    return like(q, a), like(np.triu(r[: q.shape[1]]), a)


def reflector(x: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """The unit normal v of the reflection that maps x onto the first axis; 0 for a zero x."""
    size = length(x)
    if size == 0:
        return np.zeros_like(x)
    v = x / size
    # Reflect to the end of the axis opposite to x, so that nothing cancels in this sum.
    v[0] += np.copysign(1.0, v[0])
    return v / length(v)


def reflect(block: Float[np.ndarray, "n k"], v: Float[np.ndarray, "n"]) -> None:
    """block <- (I - 2 v v^T) block, in place; given block.T, block <- block (I - 2 v v^T)."""
    block -= np.outer(2 * v, v @ block)


def lstsq(a: Real[np.ndarray, "m n"], b: Real[np.ndarray, "m *k"]) -> Float[np.ndarray, "n *k"]:
    """Finds the x with the least |A x - b|, for one right side or one per column of b.

    With A = Q R this is R x = Q^T b. The normal equations A^T A x = A^T b are equivalent, but their
    condition number is the square of A's.
    Errors: `ValueError` for dependent columns, where x is not unique. Source: GVL, section 5.3.
    """
    x, right = as_matrix(a), as_right_side(a, b)
    m, n = x.shape
    q, r = qr(x)
    lengths = np.array([length(column) for column in r.T])
    if n > m or np.any(np.abs(np.diag(r)) <= m * EPS * lengths):
        raise ValueError(
            f"the {n} columns of the {m} x {n} matrix are dependent; "
            "pinv(a) @ b is the shortest of the best solutions"
        )
    return like(back_substitution(r, q.T @ right), a, b)
