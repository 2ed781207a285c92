"""The nearest matrix of low rank, and its distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Real

from groundup.maths.linalg.precision import as_matrix, length, like
from groundup.maths.linalg.singular_values import svd


def low_rank(a: Real[np.ndarray, "m n"], rank: int) -> LowRank:
    """Gives the matrix of rank r or less that is nearest to A: the first r terms of its SVD.

    A_r = sum_i<=r s_i u_i v_i^T,  |A - A_r|_2 = s_r+1,  |A - A_r|_F = sqrt(sum_i>r s_i^2)

    No other matrix of that rank is nearer in either norm. This is why LoRA works: it learns a
    change of the weights as a product of two thin matrices, r (m + n) numbers instead of m n. If
    the singular values of the best change fall fast, a change of rank r is nearly as good.
    Errors: `ValueError` for a rank outside 0 ... min(m, n).
    Sources: Eckart and Young (1936), "The approximation of one matrix by another of lower rank";
    Mirsky (1960) for the spectral norm; Hu et al. (2021), "LoRA", section 7.
    """
    x = as_matrix(a)
    if not 0 <= rank <= min(x.shape):
        raise ValueError(f"rank={rank} for a matrix of shape {x.shape}")
    u, s, vt = svd(x)
    dropped = s[rank:]
    return LowRank(
        left=like(u[:, :rank] * s[:rank], a),
        right=like(vt[:rank], a),
        spectral_error=float(dropped.max(initial=0.0)),
        frobenius_error=length(dropped),
    )


@dataclass(frozen=True, eq=False)
class LowRank:
    """A matrix of rank r as a product of two thin ones, and its distances from the original."""

    left: Float[np.ndarray, "m r"]
    right: Float[np.ndarray, "r n"]
    spectral_error: float
    frobenius_error: float

    @property
    def matrix(self) -> Float[np.ndarray, "m n"]:
        """The product, of the original's shape."""
        product: Float[np.ndarray, "m n"] = self.left @ self.right
        return product
