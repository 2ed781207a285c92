"""Linear algebra from scratch: every factorization is implemented here on NumPy arrays.

A factorization writes a matrix as a product of simple ones, which makes many problems easy. Three
kinds are simple: triangular (equations are solved one after the other), orthogonal (keeps lengths,
so it never enlarges an error) and diagonal (acts on each axis separately). Each module builds on
those before it:

    elimination      A[rows] = L U        lu, and with it solve, det, inv
    orthogonal       A = Q R              Gram-Schmidt; Householder's qr, which errs less; lstsq
    eigenvalues      A = Q diag(w) Q^T    eigh; for any square matrix eigvals, power_iteration
    singular_values  A = U diag(s) V^T    svd, and with it matrix_rank, pinv, cond
    norms            |A|                  how large a vector or a matrix is
    projections      P = Q Q^T            the nearest point of a line or a subspace
    approximation    A_r = sum of r terms of the SVD: the nearest matrix of low rank
    pca              the few directions along which data varies most

The names are NumPy's. Inputs can be of any real dtype. Computation is in float64, and so are
results, except that float32 inputs give float32 (`precision`). Results are backward stable unless
a docstring says otherwise: they are exact for a matrix within a few roundings of the input.
"""

from groundup.maths.linalg.approximation import LowRank, low_rank
from groundup.maths.linalg.eigenvalues import PowerIteration, eigh, eigvals, power_iteration
from groundup.maths.linalg.elimination import det, inv, lu, solve
from groundup.maths.linalg.norms import norm
from groundup.maths.linalg.orthogonal import gram_schmidt, lstsq, qr
from groundup.maths.linalg.pca import PCA
from groundup.maths.linalg.projections import project, projector
from groundup.maths.linalg.singular_values import cond, matrix_rank, pinv, svd

__all__ = [
    "PCA",
    "LowRank",
    "PowerIteration",
    "cond",
    "det",
    "eigh",
    "eigvals",
    "gram_schmidt",
    "inv",
    "low_rank",
    "lstsq",
    "lu",
    "matrix_rank",
    "norm",
    "pinv",
    "power_iteration",
    "project",
    "projector",
    "qr",
    "solve",
    "svd",
]
