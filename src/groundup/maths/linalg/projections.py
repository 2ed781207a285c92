"""The nearest point of a line or a subspace: P = Q Q^T, with an orthonormal basis Q of it.

The basis is the left singular vectors of what spans the subspace, so that dependent vectors do no
harm: they add no singular value that counts.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real

from groundup.maths.linalg.precision import as_floats, as_right_side, length, like
from groundup.maths.linalg.singular_values import numerical_rank, svd


def projector(
    onto: Real[np.ndarray, "m"] | Real[np.ndarray, "m n"],
) -> Float[np.ndarray, "m m"]:
    """Gives the matrix P that moves a vector to the nearest point of a line or a subspace.

    P = Q Q^T, with an orthonormal basis Q of what the vector, or the columns, `onto` span; they
    may be dependent. P P = P = P^T: projecting twice changes nothing, and the way is at a right
    angle. For one vector u this is u u^T / u^T u.
    Source: Trefethen and Bau (1997), "Numerical linear algebra", lecture 6.
    """
    q = _orthonormal_basis(onto)
    return like(q @ q.T, onto)


def project(
    v: Real[np.ndarray, "m *k"], onto: Real[np.ndarray, "m"] | Real[np.ndarray, "m n"]
) -> Float[np.ndarray, "m *k"]:
    """Gives `projector(onto) @ v`, the point nearest to v (or to each column), without the matrix.

    Errors: `ValueError` for lengths that differ.
    """
    q, x = _orthonormal_basis(onto), as_right_side(onto, v)
    return like(q @ (q.T @ x), v, onto)


def _orthonormal_basis(
    onto: Real[np.ndarray, "m"] | Real[np.ndarray, "m n"],
) -> Float[np.ndarray, "m r"]:
    columns = as_floats(onto)
    columns = columns.reshape(len(columns), -1)
    # Only directions count, so a short vector weighs as much as a long one.
    lengths = np.array([length(column) for column in columns.T])
    u, s, _ = svd(columns / np.where(lengths > 0, lengths, 1))
    return u[:, : numerical_rank(s, onto)]
