"""Eigenvalues, A v = w v: the directions that A only stretches, and the factors.

For five and more rows there is no formula in roots, so all methods here are iterations. Repeatedly
multiplying a vector finds the largest eigenvalue. QR iteration finds all of them: each step,
T = Q R and then T <- R Q, rotates the basis and keeps the eigenvalues, and the entries below the
diagonal converge to zero. Two things make it fast: shifts of T by an estimate of the next
eigenvalue, and a nearly triangular form that every step preserves.

GVL: Golub and Van Loan (2013), "Matrix computations", 4th edition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float, Real

from groundup.maths.linalg.orthogonal import reflect, reflector
from groundup.maths.linalg.precision import (
    EPS,
    TINY,
    as_square,
    length,
    like,
    precision_of,
    scaled,
)

MAX_STEPS = 60  # steps of QR iteration for one eigenvalue; about 3 usually suffice
_LARGE = 1e300  # the length of a row of such numbers may overflow


@dataclass(frozen=True, eq=False)
class PowerIteration:
    """The dominant eigenvalue, its unit vector, and |A v - w v| after each step."""

    value: float
    vector: Float[np.ndarray, "n"]
    residuals: Float[np.ndarray, "steps"]

    @property
    def rate(self) -> float:
        """The factor by which a step reduced the residual, over the last half of the steps.

        In theory it is |w_2 / w_1|, the ratio of the second largest eigenvalue to the largest.
        """
        late = self.residuals[(len(self.residuals) - 1) // 2 :]
        if late[-1] == 0:
            return 0.0
        return float((late[-1] / late[0]) ** (1 / max(1, len(late) - 1)))


def power_iteration(
    a: Real[np.ndarray, "n n"], *, tol: float = 1e-12, max_steps: int = 10_000, seed: int = 0
) -> PowerIteration:
    """Finds the eigenvalue of largest modulus by repeatedly multiplying a random vector.

    v <- A v / |A v|,  w = v^T A v

    Each step reduces the components of v along other eigenvectors by |w_i / w_1|. It ends when
    |A v - w v| <= tol |A v|; the vector's largest entry is positive.
    Errors: `ValueError` if `max_steps` do not suffice: |w_2 / w_1| is 1 or very close, as for a
    complex pair, +w with -w, or a defective matrix. Source: GVL, section 7.3.1.
    """
    x, scale = scaled(as_square(a))
    v = np.random.default_rng(seed).normal(size=len(x))
    v /= length(v)
    residuals = []
    for _ in range(max_steps):
        image = x @ v
        value, size = float(v @ image), length(image)
        residuals.append(length(image - value * v))
        if residuals[-1] <= tol * size:
            v *= np.sign(v[np.argmax(np.abs(v))])
            return PowerIteration(value * scale, like(v, a), np.array(residuals) * scale)
        v = image / size
    raise ValueError(
        f"power iteration did not converge within max_steps={max_steps}: no eigenvalue dominates; "
        "use eigvals, or more steps"
    )


def eigh(a: Real[np.ndarray, "n n"]) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n n"]]:
    """Gives all eigenvalues of a symmetric matrix, ascending, and orthonormal eigenvectors.

    A = Q diag(w) Q^T; column i of Q belongs to w[i]

    Reflections make A tridiagonal. Then each step of QR iteration, T - mu I = Q R followed by
    T <- R Q + mu I, drives the last subdiagonal entry to zero, cubically with Wilkinson's shift mu.
    At a zero the matrix splits into two.
    Errors: `ValueError` for a matrix that is not square or not symmetric.
    Sources: Wilkinson (1968), "Global convergence of tridiagonal QR algorithm with origin
    shifts"; GVL, section 8.3.
    """
    x, scale = scaled(as_square(a))
    if np.abs(x - x.T).max() > np.sqrt(np.finfo(precision_of(a)).eps):
        raise ValueError("the matrix is not symmetric; use eigvals, or eigh((a + a.T) / 2)")
    h, q = _hessenberg((x + x.T) / 2)
    diagonal, beside = np.diag(h).tolist(), np.diag(h, 1).tolist()
    vectors = q.T.copy()  # as rows, which are contiguous in memory
    high, steps = len(h) - 1, 0
    while high > 0:
        low = high
        while low > 0 and not _negligible(beside[low - 1], diagonal[low - 1], diagonal[low]):
            low -= 1
        if low < high:
            steps = _next_step(steps)
            _wilkinson_step(diagonal, beside, vectors, low, high)
        else:
            high, steps = high - 1, 0
    order = np.argsort(diagonal)
    return like(np.array(diagonal)[order] * scale, a), like(vectors[order].T, a)


def _wilkinson_step(
    diagonal: list[float],
    beside: list[float],
    vectors: Float[np.ndarray, "n n"],
    low: int,
    high: int,
) -> None:
    """Do a step of QR iteration on rows low ... high of a symmetric tridiagonal matrix, in place.

    QR of T - mu I is never formed: its first rotation creates an entry outside the band, a bulge,
    and further rotations chase it down and out ("implicit Q", GVL, theorem 8.3.2).
    """
    d, e = diagonal, beside
    half, last = (d[high - 1] - d[high]) / 2, e[high - 1]
    # mu is the eigenvalue of the last 2 x 2 block that is closer to its last entry.
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

    Complex ones are exact conjugate pairs, the positive imaginary part first. A is balanced.
    Reflections make it Hessenberg (zero below the first subdiagonal). QR iteration with two shifts
    at once, which may be a conjugate pair in real arithmetic, reduces it to blocks of one or two
    rows. Defective eigenvalues change by EPS^(1/k) for a rounding of A, whatever the method.
    Errors: `ValueError` for a matrix that is not square.
    Sources: Francis (1961), "The QR transformation"; GVL, section 7.5.
    """
    x = as_square(a)
    # Balancing needs small numbers unscaled, but no length may overflow.
    room = 1 / EPS if np.abs(x).max() > _LARGE else 1.0
    x, scale = scaled(_balanced(x / room))
    h, _ = _hessenberg(x)
    values: list[complex] = []
    high, steps = len(h), 0
    while high > 0:
        low = high - 1
        while low > 0 and not _negligible(h[low, low - 1], h[low - 1, low - 1], h[low, low]):
            low -= 1
        block = h[low:high, low:high]
        if len(block) > 2:
            steps = _next_step(steps)
            _francis_step(block, unusual=steps % 10 == 0)
        else:
            values += _small_eigenvalues(block)
            high, steps = low, 0
    result = np.array(values) * scale * room
    kind = np.result_type(precision_of(a), np.complex64)
    return result[np.argsort(-np.abs(result), kind="stable")].astype(kind, copy=False)


def _balanced(a: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """D^-1 A D, with the same eigenvalues, for a diagonal D of powers of two that gives each row
    and its column about equal length: small eigenvalues of graded matrices then keep their digits.

    Source: Parlett and Reinsch (1969), "Balancing a matrix for calculation of eigenvalues and
    eigenvectors"; James et al. (2014), "On matrix balancing and eigenvector computation".
    """
    a, settled = a.copy(), False
    while not settled:
        settled = True
        for i in range(len(a)):
            row, column = length(a[i]), length(a[:, i])
            if row == 0 or column == 0:
                continue
            factor = 2.0 ** round((math.log2(row) - math.log2(column)) / 2)
            if math.hypot(column * factor, row / factor) < 0.95 * math.hypot(column, row):
                a[:, i] *= factor
                a[i] /= factor
                settled = False
    return a


def _francis_step(h: Float[np.ndarray, "n n"], *, unusual: bool) -> None:
    """Do a double-shifted step of QR iteration on a Hessenberg matrix of 3 or more rows, in place.

    The shifts are the eigenvalues of the last 2 x 2 block; if they are real, the one closer to the
    last entry is used twice. With their sum t and product d the two steps are QR of
    M = H^2 - t H + d I, of which only the first column is needed: a reflection made from it creates
    a 3 x 3 bulge, and further reflections chase it down and out.
    """
    n = len(h)
    one, other = _small_eigenvalues(h[-2:, -2:])
    if one.imag == 0:
        one = other = min(one, other, key=lambda shift: abs(shift - h[-1, -1]))
    trace, determinant = (one + other).real, (one * other).real
    if unusual:  # some matrices, such as permutations, do not change with the usual shifts
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
        touched, v = slice(k, min(k + 3, n)), reflector(bulge)
        reflect(h[touched, max(k - 1, 0) :], v)
        reflect(h[: min(k + 4, n), touched].T, v)
        bulge = h[k + 1 : min(k + 4, n), k]
    h[:] = np.triu(h, -1)  # exact zeros, which the reflections left as rounding noise


def _small_eigenvalues(block: Float[np.ndarray, "k k"]) -> list[complex]:
    """Return the eigenvalues of a 1 x 1 or 2 x 2 matrix by the quadratic formula."""
    if len(block) == 1:
        return [complex(block[0, 0])]
    (a, b), (c, d) = block.tolist()
    half = (a - d) / 2
    square = half * half + b * c
    if square < 0:
        root = math.sqrt(-square)
        return [complex((a + d) / 2, root), complex((a + d) / 2, -root)]
    z = half + math.copysign(math.sqrt(square), half)
    # The second root is a quotient, because a difference would cancel.
    return [complex(d + z), complex(d - b * c / z) if z else complex(d)]


def _hessenberg(
    a: Float[np.ndarray, "n n"],
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    """Return A = Q H Q^T with H zero below the first subdiagonal: tridiagonal for symmetric A."""
    h, q = a.copy(), np.eye(len(a))
    for k in range(len(a) - 2):
        v = reflector(h[k + 1 :, k])
        reflect(h[k + 1 :, k:], v)
        reflect(h[:, k + 1 :].T, v)
        reflect(q[:, k + 1 :].T, v)
    return np.triu(h, -1), q


def _negligible(entry: float, before: float, after: float) -> bool:
    """Whether an off-diagonal entry is rounding noise relative to its two diagonal neighbors."""
    return bool(abs(entry) <= EPS * (abs(before) + abs(after)) + TINY)


def _next_step(steps: int) -> int:
    """Counts the steps of QR iteration for one eigenvalue."""
    if steps == MAX_STEPS:
        raise ValueError(
            f"QR iteration did not converge in {MAX_STEPS} steps for one eigenvalue; "
            "add a multiple of the identity and subtract it from the eigenvalues"
        )
    return steps + 1
