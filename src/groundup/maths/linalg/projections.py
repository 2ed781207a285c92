"""The nearest point of a line or a subspace: P = Q Q^T, with an orthonormal basis Q of it.

The basis consists of left singular vectors of the spanning vectors. Dependent vectors are allowed,
because they add only negligible singular values.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real

from groundup.maths.linalg.precision import as_floats, as_right_side, length, like
from groundup.maths.linalg.singular_values import numerical_rank, svd


def projector(
    onto: Real[np.ndarray, "m"] | Real[np.ndarray, "m n"],
) -> Float[np.ndarray, "m m"]:
    """Gives the matrix P that maps a vector to the nearest point of a line or a subspace.

    P = Q Q^T, with an orthonormal basis Q of the span of the vector, or the columns, `onto`, which
    may be dependent. P P = P = P^T: projecting twice changes nothing, and the projection is
    orthogonal. For one vector u this is u u^T / u^T u.
    Source: Trefethen and Bau (1997), "Numerical linear algebra", lecture 6.
    """
    q = _orthonormal_basis(onto)
    return like(q @ q.T, onto)


def project(
    v: Real[np.ndarray, "m *k"], onto: Real[np.ndarray, "m"] | Real[np.ndarray, "m n"]
) -> Float[np.ndarray, "m *k"]:
    """Gives `projector(onto) @ v`, the point nearest to v (or to each column), without the matrix.

    Errors: `ValueError` for different lengths.
    """
    q, x = _orthonormal_basis(onto), as_right_side(onto, v)
    return like(q @ (q.T @ x), v, onto)


def _orthonormal_basis(
    onto: Real[np.ndarray, "m"] | Real[np.ndarray, "m n"],
) -> Float[np.ndarray, "m r"]:
    columns = as_floats(onto)
    columns = columns.reshape(len(columns), -1)
    # Only directions matter, so short vectors count as much as long ones.
    lengths = np.array([length(column) for column in columns.T])
    u, s, _ = svd(columns / np.where(lengths > 0, lengths, 1))
    return u[:, : numerical_rank(s, onto)]
