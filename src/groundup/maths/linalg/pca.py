"""Principal component analysis: the few directions along which data varies most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Real

from groundup.maths.linalg.precision import as_matrix, like
from groundup.maths.linalg.singular_values import svd


@dataclass(frozen=True, eq=False)
class PCA:
    """The directions along which data varies most: principal component analysis.

    Fields: `mean` of the data; `components`, orthonormal rows, the direction of most variance
    first; `explained_variance` along each (divided by n - 1) and `explained_variance_ratio`, its
    fraction of the total. The sign of a component is arbitrary: its entry of largest modulus is
    positive here.
    """

    mean: Float[np.ndarray, "d"]
    components: Float[np.ndarray, "k d"]
    explained_variance: Float[np.ndarray, "k"]
    explained_variance_ratio: Float[np.ndarray, "k"]

    @staticmethod
    def fit(data: Real[np.ndarray, "n d"], components: int | None = None) -> PCA:
        """Takes the first `components` (default: all) right singular vectors of data - mean.

        They are the eigenvectors of the covariance matrix, and s^2 / (n - 1) its eigenvalues. The
        SVD of the data itself avoids the squaring, which would lose half of the digits.
        Errors: `ValueError` for rows that are all equal, or components outside 1 ... min(n, d).
        Source: Pearson (1901), "On lines and planes of closest fit to systems of points".
        """
        x = as_matrix(data)
        k = min(x.shape) if components is None else components
        if not 1 <= k <= min(x.shape):
            raise ValueError(f"{k} components of data of shape {x.shape}: give 1 … {min(x.shape)}")
        if not np.ptp(x, axis=0).any():
            raise ValueError("all rows are equal and have no variance; give different ones")
        mean = x.mean(axis=0)
        _, s, vt = svd(x - mean)
        largest = np.argmax(np.abs(vt), axis=1)
        vt *= np.sign(vt[np.arange(len(vt)), largest])[:, None]
        variance = s**2 / (len(x) - 1)
        share = (s / s[0]) ** 2  # avoids overflow and underflow
        return PCA(
            like(mean, data),
            like(vt[:k], data),
            like(variance[:k], data),
            like(share[:k] / share.sum(), data),
        )

    def transform(self, data: Real[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Gives each row's k coordinates along the components, relative to the mean.

        Errors: `ValueError` for rows of another length than those fitted.
        """
        x = as_matrix(data)
        if x.shape[1] != len(self.mean):
            raise ValueError(
                f"data of shape {x.shape}, but fitted to rows of {len(self.mean)} numbers"
            )
        return like((x - self.mean) @ self.components.T, data, self.mean)

    def reconstruct(self, coordinates: Real[np.ndarray, "n k"]) -> Float[np.ndarray, "n d"]:
        """Gives the points with these coordinates; for k < d other components are lost.

        Errors: `ValueError` for rows of another length than the number of components.
        """
        x = as_matrix(coordinates)
        if x.shape[1] != len(self.components):
            raise ValueError(
                f"coordinates of shape {x.shape} for {len(self.components)} components"
            )
        return like(x @ self.components + self.mean, coordinates, self.mean)
