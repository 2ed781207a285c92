"""Linear algebra from scratch: every factorisation here is our own code on NumPy's arrays.

A factorisation writes a matrix as a product of simple ones, and each question then has a short
answer. Three shapes are simple: triangular (equations solve themselves, last one first),
orthogonal (keeps lengths, so it never enlarges an error) and diagonal (acts on each axis alone):

    A[rows] = L U        elimination       solve, det, inv
    A = Q R              Householder       lstsq, Gram-Schmidt's result without its errors
    A = Q diag(w) Q^T    QR iteration      eigh; for any square matrix eigvals
    A = U diag(s) V^T    Jacobi rotations  svd: rank, pinv, cond, low_rank, PCA

The names are NumPy's. Any real numbers come in; the work is done in float64, and what comes out
is float64 too, or float32 where only float32 came in. Results are backward stable unless a
docstring says otherwise: they are exact for a matrix within a few roundings of the given one.

Sources: Golub and Van Loan (2013), "Matrix computations", 4th edition, below "GVL"; Trefethen and
Bau (1997), "Numerical linear algebra".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Complex, Float, Integer, Real

from groundup.errors import UserError

EPS = float(np.finfo(np.float64).eps)  # the spacing of float64 at 1, about 2.2e-16
# Next to a largest entry between 1 and 2 this is nothing; the square of less could underflow.
VANISHED = 1e-140
PATIENCE = 60  # QR steps for one eigenvalue, where about 3 suffice; Jacobi sweeps, where about 10


# Norms and projections.


def norm(
    a: Real[np.ndarray, "n"] | Real[np.ndarray, "m n"], ord: float | str | None = None
) -> float:
    """Measures how large a vector or a matrix is.

    Vectors:   1: sum |a_i|   2, the default: sqrt(sum a_i^2)   inf: max |a_i|
    Matrices:  the same three as the most that A stretches a vector, max |A x| / |x|:
               1: largest column sum of |a_ij|   2 (spectral): largest singular value
               inf: largest row sum of |a_ij|
               "fro", the default: sqrt(sum a_ij^2) = sqrt(sum s_i^2)   "nuc": sum s_i
    Errors: `UserError` for another `ord`. Source: GVL, sections 2.2, 2.3.
    """
    x = _finite(a)
    match x.ndim, ord:
        case (1, None | 2) | (2, None | "fro"):
            return _length(x.ravel())
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
    raise UserError(
        f"ord={ord!r} is no norm of an array of shape {x.shape}; "
        "give 1, 2 or inf, and for a matrix also 'fro' or 'nuc'"
    )


def projector(
    onto: Real[np.ndarray, "m"] | Real[np.ndarray, "m n"],
) -> Float[np.ndarray, "m m"]:
    """Gives the matrix P that moves a vector to the nearest point of a line or a subspace.

    P = Q Q^T, with an orthonormal basis Q of what the vector, or the columns, `onto` span; they
    may be dependent. P P = P = P^T: projecting twice changes nothing, and the way is at a right
    angle. For one vector u this is u u^T / u^T u. Source: Trefethen and Bau, lecture 6.
    """
    q = _orthonormal_basis(onto)
    return _like(q @ q.T, onto)


def project(
    v: Real[np.ndarray, "m *k"], onto: Real[np.ndarray, "m"] | Real[np.ndarray, "m n"]
) -> Float[np.ndarray, "m *k"]:
    """Gives `projector(onto) @ v`, the point nearest to v (or to each column), without the matrix.

    Errors: `UserError` for lengths that differ.
    """
    q, x = _orthonormal_basis(onto), _right_side(onto, v)
    return _like(q @ (q.T @ x), v, onto)


def _orthonormal_basis(
    onto: Real[np.ndarray, "m"] | Real[np.ndarray, "m n"],
) -> Float[np.ndarray, "m r"]:
    columns = _finite(onto)
    columns = columns.reshape(len(columns), -1)
    # Only directions count, so a short vector weighs as much as a long one.
    lengths = np.array([_length(column) for column in columns.T])
    u, s, _ = svd(columns / np.where(lengths > 0, lengths, 1))
    return u[:, : _rank(s, onto)]


# Orthogonal bases: A = Q R.


def gram_schmidt(
    a: Real[np.ndarray, "m n"], *, modified: bool = True
) -> tuple[Float[np.ndarray, "m n"], Float[np.ndarray, "n n"]]:
    """Factors A = Q R by taking from each column what earlier ones already have.

    r_ij = q_i . a_j,  q_j = (a_j - sum_i<j r_ij q_i) / r_jj,  r_jj the length of what is left

    The modified form computes r_ij from what is left of a_j instead of from a_j: equal on paper,
    but an error in q_1 is then corrected by q_2, q_3, ... instead of being kept. With EPS
    = 2.2e-16 and condition number k the loss |Q^T Q - I| is about EPS k^2 in the classical form,
    EPS k in the modified one, and EPS in `qr`, which is the one to use.
    Errors: `UserError` for dependent columns. Sources: Bjorck (1967), "Solving linear least
    squares problems by Gram-Schmidt orthogonalization"; Giraud et al. (2005) for the classical.
    """
    columns = _matrix(a)
    m, n = columns.shape
    if n > m:
        raise UserError(f"{n} columns of {m} numbers must be dependent; give at most {m}")
    q, r = np.zeros((m, n)), np.zeros((n, n))
    for j, column in enumerate(columns.T):
        rest = column
        for i in range(j):
            r[i, j] = q[:, i] @ (rest if modified else column)
            rest = rest - r[i, j] * q[:, i]
        r[j, j] = _length(rest)
        if r[j, j] <= m * EPS * _length(column):
            raise UserError(f"column {j} depends on those before it; leave it out, or use qr")
        q[:, j] = rest / r[j, j]
    return _like(q, a), _like(r, a)


def qr(
    a: Real[np.ndarray, "m n"], *, full: bool = False
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, "k n"]]:
    """Factors A = Q R, Q with orthonormal columns, R upper triangular, by Householder.

    H_k ... H_2 H_1 A = R,  H = I - 2 v v^T,  v along x + sign(x_1) |x| e_1

    Each reflection H lays what is left of one column onto an axis, so zeros appear below it. k is
    min(m, n), or m with `full`. The diagonal of R is not negative, which makes the factors unique
    where the columns of A are independent.
    Source: Householder (1958), "Unitary triangularization of a nonsymmetric matrix"; GVL, 5.2.
    """
    r = _matrix(a)
    m, n = r.shape
    k = min(m, n)
    normals = []
    for j in range(k):
        normals.append(_reflector(r[j:, j]))
        _reflect(r[j:, j:], normals[j])
    q = np.eye(m, m if full else k)
    for j in reversed(range(k)):
        _reflect(q[j:, j:], normals[j])
    signs = np.where(np.diag(r) < 0, -1.0, 1.0)
    q[:, :k] *= signs
    r[:k] *= signs[:, None]
    return _like(q, a), _like(np.triu(r[: q.shape[1]]), a)


def _reflector(x: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """The unit normal v of the mirror in which x falls onto the first axis; 0 for a zero x."""
    size = _length(x)
    if size == 0:
        return np.zeros_like(x)
    v = x / size
    # Of the two ends of the axis the one on x's other side: nothing cancels in this sum.
    v[0] += np.copysign(1.0, v[0])
    return v / _length(v)


def _reflect(block: Float[np.ndarray, "n k"], v: Float[np.ndarray, "n"]) -> None:
    """block <- (I - 2 v v^T) block, in place; given block.T, block <- block (I - 2 v v^T)."""
    block -= np.outer(2 * v, v @ block)


def lstsq(a: Real[np.ndarray, "m n"], b: Real[np.ndarray, "m *k"]) -> Float[np.ndarray, "n *k"]:
    """Finds the x with the least |A x - b|, for one right side or one per column of b.

    With A = Q R this is R x = Q^T b. The normal equations A^T A x = A^T b say the same, but their
    condition number is the square of A's.
    Errors: `UserError` for dependent columns, where many x are as good. Source: GVL, section 5.3.
    """
    x, right = _matrix(a), _right_side(a, b)
    m, n = x.shape
    q, r = qr(x)
    lengths = np.array([_length(column) for column in r.T])
    if n > m or np.any(np.abs(np.diag(r)) <= m * EPS * lengths):
        raise UserError(
            f"the {n} columns of the {m} x {n} matrix are dependent; "
            "pinv(a) @ b is the shortest of the best solutions"
        )
    return _like(_back_substitution(r, q.T @ right), a, b)


# Elimination: A[rows] = L U.


def lu(
    a: Real[np.ndarray, "n n"],
) -> tuple[Integer[np.ndarray, "n"], Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    """Eliminates below the diagonal, the largest entry of each column first: A[rows] = L U.

    L is lower triangular with 1 on its diagonal and holds the multiples that were subtracted; U
    is what elimination leaves, upper triangular. Partial pivoting, the swap that brings the
    largest entry up, keeps |l_ij| <= 1, so that errors grow little. `rows` says where each row
    came from. A singular matrix has factors too, with a zero on U's diagonal.
    Errors: `UserError` for a matrix that is not square. Source: GVL, section 3.4.
    """
    u = _square(a)
    n = len(u)
    rows = np.arange(n)
    for k in range(n):
        pivot = k + int(np.argmax(np.abs(u[k:, k])))
        u[[k, pivot]], rows[[k, pivot]] = u[[pivot, k]], rows[[pivot, k]]
        if u[k, k] != 0:
            u[k + 1 :, k] /= u[k, k]  # L grows in the place of the zeros
            u[k + 1 :, k + 1 :] -= np.outer(u[k + 1 :, k], u[k, k + 1 :])
    return rows, _like(np.tril(u, -1) + np.eye(n), a), _like(np.triu(u), a)


def solve(a: Real[np.ndarray, "n n"], b: Real[np.ndarray, "n *k"]) -> Float[np.ndarray, "n *k"]:
    """Solves A x = b for one right side, or for each column of b: L y = b[rows], then U x = y.

    Errors: `UserError` for a matrix that is not square, singular to working precision, or of
    another height than b.
    """
    rows, lower, u = lu(_square(a))
    right = _right_side(a, b)
    # What cancelled down to rounding noise is a zero. The sum of the magnitudes that went into a
    # pivot is the measure: diag(1, 1e-20) is no sum at all and solves well.
    noise = len(u) * EPS * np.einsum("ij,ji->i", np.abs(lower), np.abs(u))
    if np.any(np.abs(np.diag(u)) <= noise):
        raise UserError(
            f"the {len(u)} x {len(u)} matrix is singular to working precision, so its rows depend "
            "on each other; remove the dependence, or use pinv"
        )
    y = _back_substitution(lower[::-1, ::-1], right[rows][::-1])[::-1]  # L upside down is upper
    return _like(_back_substitution(u, y), a, b)


def _back_substitution(
    u: Float[np.ndarray, "n n"], b: Float[np.ndarray, "n *k"]
) -> Float[np.ndarray, "n *k"]:
    """Solves U x = b from the last equation up: x_i = (b_i - sum_j>i u_ij x_j) / u_ii."""
    x = np.zeros_like(b)
    for i in reversed(range(len(b))):
        x[i] = (b[i] - u[i, i + 1 :] @ x[i + 1 :]) / u[i, i]
    return x


def inv(a: Real[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Solves A X = I. To solve equations use `solve`: it is faster, and more accurate.

    Errors: `UserError` for a matrix that is not square or is singular.
    """
    x = _square(a)
    return _like(solve(x, np.eye(len(x))), a)


def det(a: Real[np.ndarray, "n n"]) -> float:
    """Gives the factor, with sign, by which A enlarges volumes: the product of U's diagonal.

    Each swap of rows in `lu` turns the sign. Where the product exceeds float64 it is inf.
    Errors: `UserError` for a matrix that is not square.
    """
    rows, _, u = lu(_square(a))
    inversions = np.count_nonzero(np.triu(rows[:, None] > rows))  # odd for an odd number of swaps
    mantissas, exponents = np.frexp(np.diag(u))  # a product such as 1e200 * 1e200 * 1e-300 is 1e100
    with np.errstate(over="ignore"):
        return float((-1) ** inversions * np.ldexp(np.prod(mantissas), exponents.sum()))


# Eigenvalues: A v = w v.


@dataclass(frozen=True, eq=False)
class PowerIteration:
    """The dominant eigenvalue, its unit vector, and |A v - w v| after each step."""

    value: float
    vector: Float[np.ndarray, "n"]
    residuals: Float[np.ndarray, "steps"]

    @property
    def rate(self) -> float:
        """The factor by which the residual shrank per step over the last half of the steps.

        In theory it is |w_2 / w_1|, the second largest eigenvalue against the largest.
        """
        late = self.residuals[(len(self.residuals) - 1) // 2 :]
        if late[-1] == 0:
            return 0.0
        return float((late[-1] / late[0]) ** (1 / max(1, len(late) - 1)))


def power_iteration(
    a: Real[np.ndarray, "n n"], *, tol: float = 1e-12, max_steps: int = 10_000, seed: int = 0
) -> PowerIteration:
    """Finds the eigenvalue of largest modulus by multiplying a random vector again and again.

    v <- A v / |A v|,  w = v^T A v

    Each step shrinks the parts of v along the other eigenvectors by |w_i / w_1|. It ends when
    |A v - w v| <= tol |A v|; the vector's largest entry is positive.
    Errors: `UserError` if `max_steps` do not suffice: |w_2 / w_1| is 1 or very near it, as for a
    complex pair, +w with -w, or a defective matrix. Source: GVL, section 7.3.1.
    """
    x, scale = _scaled(_square(a))
    v = np.random.default_rng(seed).normal(size=len(x))
    v /= _length(v)
    residuals = []
    for _ in range(max_steps):
        image = x @ v
        value, size = float(v @ image), _length(image)
        residuals.append(_length(image - value * v))
        if residuals[-1] <= tol * size:
            v *= np.sign(v[np.argmax(np.abs(v))])
            return PowerIteration(value * scale, _like(v, a), np.array(residuals) * scale)
        v = image / size
    raise UserError(
        f"power iteration did not settle within max_steps={max_steps}: no eigenvalue stands out; "
        "use eigvals, or more steps"
    )


def eigh(a: Real[np.ndarray, "n n"]) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n n"]]:
    """Gives all eigenvalues of a symmetric matrix, ascending, and orthonormal eigenvectors.

    A = Q diag(w) Q^T; column i of Q belongs to w[i]

    Reflections make A tridiagonal; then each step of QR iteration, T - mu I = Q R followed by
    T <- R Q + mu I, drives the last entry beside the diagonal to zero: cubically, with Wilkinson's
    shift mu. Where one is zero the matrix falls into two.
    Errors: `UserError` for a matrix that is not square or not symmetric.
    Sources: Wilkinson (1968), "Global convergence of tridiagonal QR algorithm with origin
    shifts"; GVL, section 8.3.
    """
    x, scale = _scaled(_square(a))
    if np.abs(x - x.T).max() > np.sqrt(np.finfo(_precision(a)).eps):
        raise UserError("the matrix is not symmetric; use eigvals, or eigh((a + a.T) / 2)")
    h, q = _hessenberg((x + x.T) / 2)
    diagonal, beside = np.diag(h).tolist(), np.diag(h, 1).tolist()
    vectors = q.T.copy()  # as rows, which lie together in memory
    high, steps = len(h) - 1, 0
    while high > 0:
        low = high
        while low > 0 and not _negligible(beside[low - 1], diagonal[low - 1], diagonal[low]):
            low -= 1
        if low < high:
            steps = _one_more(steps)
            _wilkinson_step(diagonal, beside, vectors, low, high)
        else:
            high, steps = high - 1, 0
    order = np.argsort(diagonal)
    return _like(np.array(diagonal)[order] * scale, a), _like(vectors[order].T, a)


def _wilkinson_step(
    diagonal: list[float],
    beside: list[float],
    vectors: Float[np.ndarray, "n n"],
    low: int,
    high: int,
) -> None:
    """One step of QR iteration on rows low ... high of a symmetric tridiagonal matrix, in place.

    QR of T - mu I is never formed: its first rotation makes an entry outside the band, a bulge,
    and the further ones chase it down and out ("implicit Q", GVL, theorem 8.3.2).
    """
    d, e = diagonal, beside
    half, last = (d[high - 1] - d[high]) / 2, e[high - 1]
    # mu is the eigenvalue of the last 2 x 2 block that is nearer to its last entry.
    mu = d[high] - last * last / (half + math.copysign(math.hypot(half, last), half))
    x, bulge = d[low] - mu, e[low]
    for k in range(low, high):
        size = math.hypot(x, bulge)
        c, s = (x / size, bulge / size) if size > 0 else (1.0, 0.0)
        if k > low:
            e[k - 1] = size
        first, second, between = d[k], d[k + 1], e[k]
        d[k] = c * c * first + 2 * c * s * between + s * s * second
        d[k + 1] = s * s * first - 2 * c * s * between + c * c * second
        e[k] = c * s * (second - first) + (c * c - s * s) * between
        if k + 1 < high:
            x, bulge = e[k], s * e[k + 1]
            e[k + 1] *= c
        u, v = vectors[k], vectors[k + 1]
        vectors[k], vectors[k + 1] = c * u + s * v, c * v - s * u


def eigvals(a: Real[np.ndarray, "n n"]) -> Complex[np.ndarray, "n"]:
    """Gives all eigenvalues of a real square matrix, the largest modulus first.

    Complex ones come in exact conjugate pairs, the positive imaginary part first. A is balanced;
    reflections make it Hessenberg (zero below the first subdiagonal); QR iteration with two shifts
    at once, which may be a conjugate pair while all numbers stay real, leaves blocks of one or two.
    Defective eigenvalues move by EPS^(1/k) for a rounding of A, whatever the method.
    Errors: `UserError` for a matrix that is not square.
    Sources: Francis (1961), "The QR transformation"; GVL, section 7.5.
    """
    x, scale = _scaled(_balanced(_square(a)))
    h, _ = _hessenberg(x)
    values: list[complex] = []
    high, steps = len(h), 0
    while high > 0:
        low = high - 1
        while low > 0 and not _negligible(h[low, low - 1], h[low - 1, low - 1], h[low, low]):
            low -= 1
        block = h[low:high, low:high]
        if len(block) > 2:
            steps = _one_more(steps)
            _francis_step(block, unusual=steps % 10 == 0)
        else:
            values += _small_eigenvalues(block)
            high, steps = low, 0
    result = np.array(values) * scale
    kind = np.result_type(_precision(a), np.complex64)
    return result[np.argsort(-np.abs(result), kind="stable")].astype(kind, copy=False)


def _balanced(a: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """D^-1 A D, of the same eigenvalues, with a diagonal D of powers of two that brings each row
    and its column to about one length: in graded matrices small eigenvalues then keep digits.

    Source: Parlett and Reinsch (1969), "Balancing a matrix for calculation of eigenvalues and
    eigenvectors"; James et al. (2014), "On matrix balancing and eigenvector computation".
    """
    a, settled = a.copy(), False
    while not settled:
        settled = True
        for i in range(len(a)):
            row, column = _length(a[i]), _length(a[:, i])
            if row == 0 or column == 0:
                continue
            factor = 2.0 ** round((math.log2(row) - math.log2(column)) / 2)
            if math.hypot(column * factor, row / factor) < 0.95 * math.hypot(column, row):
                a[:, i] *= factor
                a[i] /= factor
                settled = False
    return a


def _francis_step(h: Float[np.ndarray, "n n"], *, unusual: bool) -> None:
    """One double-shifted step of QR iteration on a Hessenberg matrix of 3 or more rows, in place.

    The shifts are the eigenvalues of the last 2 x 2 block; of real ones the nearer to the last
    entry, twice. With their sum t and product d the two steps are QR of M = H^2 - t H + d I, of
    which the first column is enough: a reflection made from it disturbs the shape, and further
    ones chase the bulge of 3 x 3 down and out.
    """
    n = len(h)
    one, other = _small_eigenvalues(h[-2:, -2:])
    if one.imag == 0:
        one = other = min(one, other, key=lambda shift: abs(shift - h[-1, -1]))
    trace, determinant = (one + other).real, (one * other).real
    if unusual:  # some matrices, such as permutations, stand still under the usual shifts
        size = abs(h[-1, -2]) + abs(h[-2, -3])
        trace, determinant = 1.5 * size, size**2
    bulge = np.array(
        [
            h[0, 0] * (h[0, 0] - trace) + determinant + h[0, 1] * h[1, 0],
            h[1, 0] * (h[0, 0] + h[1, 1] - trace),
            h[1, 0] * h[2, 1],
        ]
    )
    for k in range(n - 1):
        touched, v = slice(k, min(k + 3, n)), _reflector(bulge)
        _reflect(h[touched, max(k - 1, 0) :], v)
        _reflect(h[: min(k + 4, n), touched].T, v)
        bulge = h[k + 1 : min(k + 4, n), k]
    h[:] = np.triu(h, -1)  # the zeros that the reflections made but for rounding


def _small_eigenvalues(block: Float[np.ndarray, "k k"]) -> list[complex]:
    """The eigenvalues of a 1 x 1 or 2 x 2 matrix, by the quadratic formula."""
    if len(block) == 1:
        return [complex(block[0, 0])]
    (a, b), (c, d) = block.tolist()
    half = (a - d) / 2
    square = half * half + b * c
    if square < 0:
        root = math.sqrt(-square)
        return [complex((a + d) / 2, root), complex((a + d) / 2, -root)]
    z = half + math.copysign(math.sqrt(square), half)
    # The second root as a quotient: as a difference it would cancel.
    return [complex(d + z), complex(d - b * c / z) if z else complex(d)]


def _hessenberg(
    a: Float[np.ndarray, "n n"],
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    """A = Q H Q^T with H zero below the first subdiagonal: tridiagonal if A is symmetric."""
    h, q = a.copy(), np.eye(len(a))
    for k in range(len(a) - 2):
        v = _reflector(h[k + 1 :, k])
        _reflect(h[k + 1 :, k:], v)
        _reflect(h[:, k + 1 :].T, v)
        _reflect(q[:, k + 1 :].T, v)
    return np.triu(h, -1), q


def _negligible(entry: float, before: float, after: float) -> bool:
    """Whether an entry beside the diagonal is rounding noise next to its two neighbours on it."""
    return bool(abs(entry) <= EPS * (abs(before) + abs(after)) + VANISHED)


def _one_more(steps: int) -> int:
    """Counts the steps of QR iteration towards one eigenvalue."""
    if steps == PATIENCE:
        raise UserError(
            f"QR iteration did not converge in {PATIENCE} steps for one eigenvalue; "
            "add a multiple of the identity and subtract it from the eigenvalues"
        )
    return steps + 1


# Singular values: A = U diag(s) V^T.


def svd(
    a: Real[np.ndarray, "m n"], *, full: bool = False
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, "r"], Float[np.ndarray, "l n"]]:
    """Factors A = U diag(s) V^T: turn by V^T, stretch the axes by s, turn by U.

    U (m x r) and V (n x r) have orthonormal columns, s descends and is not negative, r = min(m, n);
    with `full` U is m x m and V n x n, completed to bases of the whole space.

    One-sided Jacobi: rotate pairs of columns until all are at right angles to each other. Their
    lengths are then s, their directions U, and the product of the rotations V. Small singular
    values keep their own leading digits where scaling A's columns would make it well conditioned.
    About ten sweeps over all pairs suffice: a second for 200 columns, half a minute for 500.
    Sources: Hestenes (1958), "Inversion of matrices by biorthogonalization"; Demmel and Veselic
    (1992), "Jacobi's method is more accurate than QR"; GVL, section 8.6.
    """
    x, scale = _scaled(_matrix(a))
    m, n = x.shape
    if m < n:
        v, s, ut = svd(x.T, full=full)
        return _like(ut.T, a), _like(s * scale, a), _like(v.T, a)
    q, r = qr(x)  # first, so that the rotations turn n numbers per column, however large m is
    turned, v = _jacobi(r)
    s = np.array([_length(column) for column in turned.T])
    order = np.argsort(-s, kind="stable")
    s, turned, v = s[order], turned[:, order], v[:, order]
    s[s < VANISHED] = 0
    found = int(np.count_nonzero(s))
    u = np.zeros((m, m if full else n))
    u[:, :found] = q @ (turned[:, :found] / s[:found])
    if found < u.shape[1]:
        u = qr(u)[0]  # puts a missing direction in the place of each zero
    return _like(u, a), _like(s * scale, a), _like(v.T, a)


def _jacobi(
    a: Float[np.ndarray, "m n"],
) -> tuple[Float[np.ndarray, "m n"], Float[np.ndarray, "n n"]]:
    """Turns A's columns by an orthogonal V until they are orthogonal: A V, and V.

    Two columns x, y become c (x - t y), c (y + t x), with c = 1 / sqrt(1 + t^2). They are at a
    right angle for x.y t^2 + (y.y - x.x) t - x.y = 0; the smaller root t moves them less.
    Disjoint pairs turn at once.
    """
    m, n = a.shape
    rows = np.hstack([a.T, np.eye(n)])  # columns as rows, A V's and V's side by side
    for _ in range(PATIENCE):
        settled = True
        for i, j in _rounds(n):
            x, y = rows[i, :m], rows[j, :m]
            xx, yy, xy = (x * x).sum(axis=1), (y * y).sum(axis=1), (x * y).sum(axis=1)
            oblique = np.abs(xy) > math.sqrt(m) * EPS * np.sqrt(xx) * np.sqrt(yy)
            oblique &= np.minimum(xx, yy) > VANISHED**2
            if not oblique.any():
                continue
            settled, i, j = False, i[oblique], j[oblique]
            half, part = (yy - xx)[oblique, None] / 2, xy[oblique, None]
            t = part / (half + np.copysign(np.hypot(half, part), half))
            c = 1 / np.hypot(1, t)
            rows[i], rows[j] = c * (rows[i] - t * rows[j]), c * (rows[j] + t * rows[i])
        if settled:
            return rows[:, :m].T, rows[:, m:].T
    raise UserError(
        f"Jacobi's method did not converge in {PATIENCE} sweeps; scale the columns alike"
    )


def _rounds(n: int) -> Iterator[tuple[Integer[np.ndarray, "p"], Integer[np.ndarray, "p"]]]:
    """Pairs each of n with each other once, in rounds of disjoint pairs: a chess tournament."""
    seats = np.arange(n + n % 2)
    for _ in range(len(seats) - 1):
        one, other = seats[: len(seats) // 2], seats[: len(seats) // 2 - 1 : -1]
        present = np.maximum(one, other) < n  # who meets the number n, of an odd n, pauses
        yield one[present], other[present]
        seats[1:] = np.roll(seats[1:], 1)  # the first stays and all others move on


def matrix_rank(a: Real[np.ndarray, "m n"], rtol: float | None = None) -> int:
    """Counts the independent columns: the singular values above rtol times the largest.

    rtol is by default max(m, n) times the spacing of A's floating-point type at 1, about what
    rounding A's entries may have added.
    """
    return _rank(svd(_matrix(a))[1], a, rtol)


def pinv(a: Real[np.ndarray, "m n"], rtol: float | None = None) -> Float[np.ndarray, "n m"]:
    """Gives the pseudo-inverse A^+ = V diag(1/s) U^T; A^+ b is the shortest best solution.

    Singular values that do not count in `matrix_rank` are left out.
    Source: Penrose (1955), "A generalized inverse for matrices".
    """
    u, s, vt = svd(_matrix(a))
    rank = _rank(s, a, rtol)
    return _like((vt[:rank].T / s[:rank]) @ u[:, :rank].T, a)


def cond(a: Real[np.ndarray, "m n"]) -> float:
    """Gives the condition number s_1 / s_r: how much a relative error in b may grow in A x = b.

    1 for an orthogonal matrix, inf for a singular one; of 16 digits log10(cond) are lost.
    """
    s = svd(_matrix(a))[1]
    return float(s[0] / s[-1]) if s[-1] > 0 else float("inf")


def _rank(s: Float[np.ndarray, "r"], a: np.ndarray, rtol: float | None = None) -> int:
    if rtol is None:
        rtol = max(a.shape) * float(np.finfo(_precision(a)).eps)
    return int(np.count_nonzero(s > rtol * s[0]))


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


def low_rank(a: Real[np.ndarray, "m n"], rank: int) -> LowRank:
    """Gives the matrix of rank r or less that is nearest to A: the first r terms of its SVD.

    A_r = sum_i<=r s_i u_i v_i^T,  |A - A_r|_2 = s_r+1,  |A - A_r|_F = sqrt(sum_i>r s_i^2)

    No other matrix of that rank is nearer in either norm. This is why LoRA works: it learns a
    change of the weights as a product of two thin matrices, r (m + n) numbers instead of m n, and
    where the singular values of the best change fall fast, its part of rank r is nearly all of it.
    Errors: `UserError` for a rank outside 0 ... min(m, n).
    Sources: Eckart and Young (1936), "The approximation of one matrix by another of lower rank";
    Mirsky (1960) for the spectral norm; Hu et al. (2021), "LoRA", section 7.
    """
    x = _matrix(a)
    if not 0 <= rank <= min(x.shape):
        raise UserError(
            f"rank={rank} for a matrix of shape {x.shape}; give one from 0 to {min(x.shape)}"
        )
    u, s, vt = svd(x)
    dropped = s[rank:]
    return LowRank(
        left=_like(u[:, :rank] * s[:rank], a),
        right=_like(vt[:rank], a),
        spectral_error=float(dropped.max(initial=0.0)),
        frobenius_error=_length(dropped),
    )


@dataclass(frozen=True, eq=False)
class PCA:
    """The directions along which data vary most: principal component analysis.

    Fields: `mean` of the data; `components`, orthonormal rows, the direction of most variance
    first; `explained_variance` along each (divided by n - 1) and `explained_variance_ratio`, its
    part of the whole. A component and its negative are the same line: the entry of largest
    modulus is positive here.
    """

    mean: Float[np.ndarray, "d"]
    components: Float[np.ndarray, "k d"]
    explained_variance: Float[np.ndarray, "k"]
    explained_variance_ratio: Float[np.ndarray, "k"]

    @staticmethod
    def fit(data: Real[np.ndarray, "n d"], components: int | None = None) -> PCA:
        """Takes the first `components` (default: all) right singular vectors of data - mean.

        They are the eigenvectors of the covariance matrix, s^2 / (n - 1) its eigenvalues; the SVD
        of the data itself spares the squaring, which would lose half of the digits.
        Errors: `UserError` for rows that are all equal, or components outside 1 ... min(n, d).
        Source: Pearson (1901), "On lines and planes of closest fit to systems of points".
        """
        x = _matrix(data)
        k = min(x.shape) if components is None else components
        if not 1 <= k <= min(x.shape):
            raise UserError(f"{k} components of data of shape {x.shape}; give 1 ... {min(x.shape)}")
        if not np.ptp(x, axis=0).any():
            raise UserError("all rows are equal and vary in no direction; give different ones")
        mean = x.mean(axis=0)
        _, s, vt = svd(x - mean)
        largest = np.argmax(np.abs(vt), axis=1)
        vt *= np.sign(vt[np.arange(len(vt)), largest])[:, None]
        variance = s**2 / (len(x) - 1)
        return PCA(
            _like(mean, data),
            _like(vt[:k], data),
            _like(variance[:k], data),
            _like(variance[:k] / variance.sum(), data),
        )

    def transform(self, data: Real[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Gives each row's k coordinates along the components, seen from the mean.

        Errors: `UserError` for rows of another length than those fitted.
        """
        x = _matrix(data)
        if x.shape[1] != len(self.mean):
            raise UserError(
                f"data of shape {x.shape}, but fitted to rows of {len(self.mean)} numbers; "
                "give rows as long"
            )
        return _like((x - self.mean) @ self.components.T, data, self.mean)

    def reconstruct(self, coordinates: Real[np.ndarray, "n k"]) -> Float[np.ndarray, "n d"]:
        """Gives the points that have these coordinates; with k < d the rest is lost.

        Errors: `UserError` for rows of another length than the number of components.
        """
        x = _matrix(coordinates)
        if x.shape[1] != len(self.components):
            raise UserError(
                f"coordinates of shape {x.shape} for {len(self.components)} components; "
                "give one coordinate for each"
            )
        return _like(x @ self.components + self.mean, coordinates, self.mean)


# What comes in, what goes out, and how long a vector is.


def _finite(a: Real[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """A copy in float64 of a vector or matrix, to work in."""
    if a.ndim not in (1, 2) or a.size == 0:
        raise UserError(f"an array of shape {a.shape}; give 1 or 2 axes of at least one number")
    if a.dtype.kind not in "fiu":
        raise UserError(f"an array of {a.dtype}; give real numbers")
    x = np.array(a, dtype=np.float64)
    if not np.isfinite(x).all():
        where = tuple(np.argwhere(~np.isfinite(x))[0].tolist())
        raise UserError(f"the entry at {where} is {x[where]}; give finite numbers")
    return x


def _matrix(a: Real[np.ndarray, "m n"]) -> Float[np.ndarray, "m n"]:
    if a.ndim != 2:
        raise UserError(f"shape {a.shape} is not a matrix's; give two axes, as a[:, None] has")
    return _finite(a)


def _square(a: Real[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    x = _matrix(a)
    if x.shape[0] != x.shape[1]:
        raise UserError(f"shape {x.shape} is not square; give as many rows as columns")
    return x


def _right_side(
    a: Real[np.ndarray, "m *n"], b: Real[np.ndarray, "m *k"]
) -> Float[np.ndarray, "m *k"]:
    x = _finite(b)
    if len(x) != len(a):
        raise UserError(f"shapes {a.shape} and {x.shape} do not match; give as many rows in both")
    return x


def _scaled(a: Float[np.ndarray, "m n"]) -> tuple[Float[np.ndarray, "m n"], float]:
    """a / scale and scale, a power of two that brings the largest entry to between 1 and 2.

    Nothing is rounded, and squares can neither overflow nor vanish.
    """
    _, exponent = math.frexp(np.abs(a).max())
    scale = math.ldexp(1.0, exponent - 1)
    return a / scale, scale


def _length(v: Float[np.ndarray, "n"]) -> float:
    """sqrt(sum v_i^2), with no square too large or too small."""
    largest = float(np.abs(v).max(initial=0.0))
    return largest * math.sqrt(np.square(v / largest).sum()) if largest > 0 else 0.0


def _precision(*given: np.ndarray) -> np.dtype[Any]:
    """float32 where all of the given arrays are, else float64."""
    single = all(array.dtype == np.float32 for array in given)
    return np.dtype(np.float32 if single else np.float64)


def _like(result: Float[np.ndarray, "*shape"], *given: np.ndarray) -> Float[np.ndarray, "*shape"]:
    return result.astype(_precision(*given), copy=False)
