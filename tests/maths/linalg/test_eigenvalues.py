"""Our factorisations against NumPy's, on matrices that are easy, nearly singular, and worse.

Errors are counted in roundings: EPS times the norm of the matrix times its size. A few of those
is what "backward stable" allows, whatever the condition number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA as OraclePCA

from groundup.errors import UserError
from groundup.maths import linalg

Array = np.ndarray
EPS = np.finfo(float).eps


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def orthogonal(n: int, seed: int = 0) -> Array:
    return np.linalg.qr(random(seed).normal(size=(n, n)))[0]


def with_singular_values(s: Array, m: int, n: int, seed: int = 0) -> Array:
    """Random singular vectors around chosen singular values."""
    return orthogonal(m, seed)[:, : len(s)] * s @ orthogonal(n, seed + 1)[:, : len(s)].T


def hilbert(n: int) -> Array:
    return 1 / (np.arange(n)[:, None] + np.arange(n) + 1)


def shift(n: int) -> Array:
    return np.eye(n, k=-1)


SQUARE = {
    "one": np.array([[-3.0]]),
    "zero": np.zeros((4, 4)),
    "zero 1 x 1": np.zeros((1, 1)),
    "identity": np.eye(5),
    "random": random().normal(size=(40, 40)),
    "odd": random(1).normal(size=(7, 7)),
    "integers": random(2).integers(-3, 4, (9, 9)).astype(float),
    "Hilbert 5": hilbert(5),
    "Hilbert 12": hilbert(12),
    "Vandermonde": np.vander(np.linspace(0.1, 1, 12)),
    "condition 1e12": with_singular_values(np.logspace(0, -12, 20), 20, 20),
    "clustered": with_singular_values(np.array([1.0] * 5 + [1e-6] * 5), 10, 10),
    "rank 3": with_singular_values(np.array([3.0, 2.0, 1.0]), 12, 12),
    "ones": np.ones((8, 8)),
    "graded rows": np.logspace(0, -30, 10)[:, None] * random(3).normal(size=(10, 10)),
    "graded columns": random(4).normal(size=(10, 10)) * np.logspace(0, -200, 10),
    "huge": 1e300 * hilbert(6),
    "minute": 1e-300 * hilbert(6),
    "rotation": np.array([[0.0, -1.0], [1.0, 0.0]]),
    "permutation": np.roll(np.eye(6), 1, axis=0),
    "defective": 2 * np.eye(6) + shift(6),
    "nilpotent": shift(6),
    "repeated": orthogonal(6) @ np.diag([2.0, 2, 2, 1, 1, 5]) @ orthogonal(6).T,
    "companion": np.vstack([-np.poly(np.arange(1.0, 9))[1:], np.eye(8)[:-1]]),
}
OBLONG = {
    "tall": random().normal(size=(30, 7)),
    "wide": random().normal(size=(7, 30)),
    "column": np.array([[3.0], [4.0]]),
    "row": np.array([[3.0, 4.0]]),
    "tall zero": np.zeros((5, 2)),
    "tall rank 2": with_singular_values(np.array([5.0, 1e-3]), 20, 6),
    "wide rank 2": with_singular_values(np.array([5.0, 1e-3]), 6, 20),
    "tall condition 1e12": with_singular_values(np.logspace(3, -9, 8), 25, 8),
}
every = pytest.mark.parametrize("a", [*SQUARE.values(), *OBLONG.values()], ids=[*SQUARE, *OBLONG])
square = pytest.mark.parametrize("a", SQUARE.values(), ids=SQUARE)


def solvable(cases: dict[str, Array]) -> dict[str, Array]:
    singular = ("zero", "rank", "ones", "nilpotent")
    return {name: a for name, a in cases.items() if not any(word in name for word in singular)}


regular = pytest.mark.parametrize("a", solvable(SQUARE).values(), ids=solvable(SQUARE))


def roundings(error: Array, a: Array) -> float:
    """How many roundings of a matrix of a's norm and size make this error."""
    unit = max(np.abs(a).max(), np.finfo(float).tiny)  # NumPy's 2-norm overflows on its own
    return float(np.abs(error / unit).max() / (EPS * np.linalg.norm(a / unit, 2) * max(a.shape)))


def assert_orthonormal(q: Array) -> None:
    assert np.abs(q.T @ q - np.eye(q.shape[1])).max() <= 4 * len(q) * EPS


def assert_equal_up_to_rounding(found: Array, expected: Array, a: Array) -> None:
    if a.any():
        assert roundings(found - expected, a) <= 4
    else:
        np.testing.assert_array_equal(found, expected)


def random_matrices(shape: st.SearchStrategy[tuple[int, int]]) -> st.SearchStrategy[Array]:
    """Whole, real, sparse, graded, and products of thin ones: often singular, often not."""

    def build(shape: tuple[int, int], kind: str, seed: int) -> Array:
        source, (m, n) = random(seed), shape
        normal = source.normal(size=shape)
        if kind == "whole":
            return source.integers(-2, 3, shape).astype(float)
        if kind == "sparse":
            return (source.random(shape) < 0.3).astype(float)
        if kind == "graded":
            return normal * 10.0 ** source.integers(-150, 10, shape)
        if kind == "thin":
            return source.normal(size=(m, 1)) @ source.normal(size=(1, n))
        return normal

    kinds = st.sampled_from(["whole", "sparse", "graded", "thin", "normal"])
    return st.builds(build, shape, kinds, st.integers(0, 2**32))


sizes = st.integers(1, 9)
any_matrix = random_matrices(st.tuples(sizes, sizes))
any_square = random_matrices(sizes.map(lambda n: (n, n)))


# Norms and projections.


@every
@pytest.mark.parametrize("ord", [None, 1, 2, np.inf, "fro", "nuc"])
def test_matrix_norms_are_numpys(a: Array, ord: float | str | None) -> None:
    unit = np.abs(a).max() or 1.0
    expected = np.linalg.norm(a / unit, ord)
    assert linalg.norm(a, ord) / unit == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("ord", [None, 1, 2, np.inf])
def test_vector_norms_are_numpys(ord: float | None) -> None:
    v = random().normal(size=30)
    assert linalg.norm(v, ord) == pytest.approx(np.linalg.norm(v, ord), rel=1e-14)


def test_lengths_do_not_overflow_or_vanish() -> None:
    assert linalg.norm(np.array([3e200, 4e200])) == pytest.approx(5e200)
    assert linalg.norm(np.array([3e-200, 4e-200])) == pytest.approx(5e-200, abs=0)


def test_projection_onto_a_vector() -> None:
    u, v = np.array([3.0, 4.0]), np.array([1.0, 2.0])
    np.testing.assert_allclose(linalg.project(v, u), 11 / 25 * u)
    np.testing.assert_allclose(linalg.projector(u), np.outer(u, u) / 25)
    np.testing.assert_array_equal(linalg.projector(np.zeros(2)), np.zeros((2, 2)))


def test_projection_onto_a_subspace_is_least_squares() -> None:
    basis, v = random().normal(size=(9, 4)), random(1).normal(size=9)
    best = basis @ np.linalg.lstsq(basis, v)[0]
    np.testing.assert_allclose(linalg.project(v, basis), best, atol=1e-14)
    np.testing.assert_allclose(basis.T @ (v - linalg.project(v, basis)), 0, atol=1e-13)


@given(any_matrix)
@settings(deadline=None, max_examples=60)
def test_projectors_are_idempotent_and_symmetric(basis: Array) -> None:
    p = linalg.projector(basis)
    np.testing.assert_allclose(p @ p, p, atol=1e-13)
    np.testing.assert_array_equal(p, p.T)


def test_only_the_span_counts_in_a_projection() -> None:
    basis = random().normal(size=(6, 2))
    dependent = np.hstack([basis, basis @ np.array([[1.0], [2.0]])])
    scaled = basis * np.array([1e-30, 1e30])
    for other in (dependent, scaled):
        np.testing.assert_allclose(linalg.projector(other), linalg.projector(basis), atol=1e-14)


# Orthogonal bases.


@every
@pytest.mark.parametrize("full", [False, True])
def test_qr(a: Array, full: bool) -> None:
    q, r = linalg.qr(a, full=full)
    expected = np.linalg.qr(a, mode="complete" if full else "reduced")
    assert (q.shape, r.shape) == (expected.Q.shape, expected.R.shape)
    assert_orthonormal(q)
    assert_equal_up_to_rounding(q @ r, a, a)
    assert np.all(np.tril(r, -1) == 0)
    assert np.all(np.diag(r) >= 0)


def test_qr_is_unique_up_to_signs() -> None:
    a = random().normal(size=(8, 5))
    q, r = linalg.qr(a)
    expected_q, expected_r = np.linalg.qr(a)
    signs = np.sign(np.diag(expected_r))
    np.testing.assert_allclose(q, expected_q * signs, atol=1e-14)
    np.testing.assert_allclose(r, expected_r * signs[:, None], atol=1e-13)


@pytest.mark.parametrize("modified", [True, False])
def test_gram_schmidt_is_qr_on_a_good_matrix(modified: bool) -> None:
    a = random().normal(size=(20, 6))
    q, r = linalg.gram_schmidt(a, modified=modified)
    householder = linalg.qr(a)
    np.testing.assert_allclose(q, householder[0], atol=1e-13)
    np.testing.assert_allclose(r, householder[1], atol=1e-13)


@pytest.mark.parametrize("exponent", [3, 5, 7])
def test_loss_of_orthogonality_grows_as_the_theory_says(exponent: int) -> None:
    """EPS k^2 (Giraud et al. 2005), EPS k (Bjorck 1967) and EPS, the last whatever k is."""
    a = with_singular_values(np.logspace(0, -exponent, 20), 50, 20)
    condition = 10.0**exponent

    def loss(q: Array) -> float:
        return float(np.linalg.norm(q.T @ q - np.eye(20), 2))

    classical = loss(linalg.gram_schmidt(a, modified=False)[0])
    modified = loss(linalg.gram_schmidt(a)[0])
    householder = loss(linalg.qr(a)[0])
    assert 1e-3 * EPS * condition**2 <= classical <= 20 * EPS * condition**2
    assert 1e-3 * EPS * condition <= modified <= 20 * EPS * condition
    assert householder <= 20 * EPS


@pytest.mark.parametrize("modified", [True, False])
def test_gram_schmidt_on_hilberts_matrix_still_multiplies_back(modified: bool) -> None:
    q, r = linalg.gram_schmidt(hilbert(9), modified=modified)
    assert_equal_up_to_rounding(q @ r, hilbert(9), hilbert(9))


def test_lstsq() -> None:
    a, b = random().normal(size=(30, 5)), random(1).normal(size=(30, 3))
    np.testing.assert_allclose(linalg.lstsq(a, b), np.linalg.lstsq(a, b)[0], atol=1e-13)
    np.testing.assert_allclose(linalg.lstsq(a, b[:, 0]), linalg.lstsq(a, b)[:, 0], atol=1e-15)


def test_lstsq_keeps_the_digits_that_normal_equations_lose() -> None:
    """Lauchli's matrix: A^T A rounds to a singular matrix, and still x is (1, 1, 1)."""
    a = np.vstack([np.ones(3), 1e-9 * np.eye(3)])
    assert np.linalg.matrix_rank(a.T @ a) == 1
    np.testing.assert_allclose(linalg.lstsq(a, a @ np.ones(3)), 1, atol=1e-6)


# Elimination.


@square
def test_lu(a: Array) -> None:
    rows, lower, u = linalg.lu(a)
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(a)))
    np.testing.assert_array_equal(np.diag(lower), np.ones(len(a)))
    assert np.all(np.abs(lower) <= 1)
    assert np.all(np.triu(lower, 1) == 0)
    assert np.all(np.tril(u, -1) == 0)
    assert_equal_up_to_rounding(lower @ u, a[rows], a)


@regular
def test_solve_is_backward_stable(a: Array) -> None:
    """The residual is small next to |A| |x|, however ill-conditioned A is."""
    columns, unit = a @ random().normal(size=(len(a), 2)), np.abs(a).max()
    for b in (columns, columns[:, 0]):
        x = linalg.solve(a, b)
        assert x.shape == b.shape
        residual = a / unit @ x - b / unit
        assert np.abs(residual).max() <= 4 * EPS * np.abs(a / unit).sum() * np.abs(x).max()


def test_solve_without_pivoting_would_fail() -> None:
    a = np.array([[1e-20, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(linalg.solve(a, np.array([1.0, 2.0])), [1, 1], rtol=1e-15)


def test_a_small_scale_is_not_singular() -> None:
    a = np.diag([1.0, 1e-20, 1e-200])
    np.testing.assert_allclose(linalg.solve(a, np.array([1.0, 2e-20, 3e-200])), [1, 2, 3])


@regular
def test_inverse(a: Array) -> None:
    """A backward stable solution per column: |A X - I| is small next to |A| |X|."""
    unit = np.abs(a).max()
    x = linalg.inv(a) * unit
    error = np.abs(a / unit @ x - np.eye(len(a))).max()
    assert error <= 4 * EPS * np.abs(a / unit).sum() * np.abs(x).max()


@given(any_square)
@settings(deadline=None)
def test_determinant_is_numpys(a: Array) -> None:
    entries = np.abs(a).max()
    assume(entries > 1e-30)
    a = a / entries
    assert linalg.det(a) == pytest.approx(np.linalg.det(a), rel=1e-9, abs=1e-13)


def test_determinant_of_large_and_small_scales() -> None:
    assert linalg.det(np.diag([1e200, 1e200, 1e-300])) == pytest.approx(1e100)
    assert linalg.det(np.diag([-1e200, 1e200])) == -np.inf
    assert linalg.det(np.diag([1e200, 1e200, 0.0])) == 0
    assert linalg.det(np.roll(np.eye(4), 1, axis=0)) == -1


# Eigenvalues.


@square
def test_eigh(a: Array) -> None:
    a = a / 2 + a.T / 2
    values, vectors = linalg.eigh(a)
    assert_orthonormal(vectors)
    assert np.all(np.diff(values) >= 0)
    assert_equal_up_to_rounding(vectors * values @ vectors.T, a, a)
    unit = np.abs(a).max() or 1.0
    assert_equal_up_to_rounding(values / unit, np.linalg.eigvalsh(a / unit), a / unit)


@given(any_square)
@settings(deadline=None)
def test_eigh_of_random_matrices(a: Array) -> None:
    test_eigh(a)


@pytest.mark.parametrize("n", [3, 10, 40])
def test_eigh_of_a_known_spectrum(n: int) -> None:
    """A chain of springs: 2 - 2 cos(k pi / (n + 1))."""
    chain = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    expected = 2 - 2 * np.cos(np.arange(1, n + 1) * np.pi / (n + 1))
    assert np.abs(linalg.eigh(chain)[0] - expected).max() <= 4 * 4 * EPS * n


@square
def test_eigvals(a: Array) -> None:
    """Each is an exact eigenvalue of a matrix within roundings: A - w I is nearly singular."""
    unit = np.abs(a).max() or 1.0
    values = linalg.eigvals(a)
    assert np.all(np.diff(np.abs(values)) <= 0)
    a, values = a / unit, values / unit
    for w in values:
        least = np.linalg.svd(a - w * np.eye(len(a)))[1][-1]
        assert least <= 4 * len(a) * EPS * np.linalg.norm(a, 2)
    assert abs(values.sum() - np.trace(a)) <= 4 * len(a) ** 2 * EPS
    np.testing.assert_array_equal(np.sort_complex(values), np.sort_complex(values.conj()))


@given(any_square)
@settings(deadline=None)
def test_eigvals_of_random_matrices(a: Array) -> None:
    test_eigvals(a)


@pytest.mark.parametrize("n", [2, 3, 5, 8, 30])
def test_eigvals_are_numpys_where_they_are_well_conditioned(n: int) -> None:
    a = random(n).normal(size=(n, n))
    expected, values = np.linalg.eigvals(a), linalg.eigvals(a)
    nearest = np.abs(values[:, None] - expected).argmin(axis=1)
    assert sorted(nearest) == list(range(n))
    np.testing.assert_allclose(values, expected[nearest], atol=1e-12)
    assert np.all(values.imag[:-1][values.imag[1:] < 0] > 0)  # a pair: the positive part first


def test_eigvals_of_a_badly_scaled_matrix_keep_their_digits() -> None:
    a, scales = random().normal(size=(8, 8)), np.logspace(0, 30, 8)
    scaled = a * scales / scales[:, None]  # D^-1 A D
    np.testing.assert_allclose(linalg.eigvals(scaled), linalg.eigvals(a), rtol=1e-12)


def test_roots_of_a_polynomial() -> None:
    np.testing.assert_allclose(
        linalg.eigvals(SQUARE["companion"]), np.arange(8.0, 0, -1), rtol=1e-8
    )


@pytest.mark.parametrize("ratio", [0.3, 0.7, -0.9])
def test_power_iteration_converges_at_the_theorys_rate(ratio: float) -> None:
    values = np.array([-2.0, 2 * ratio, 0.1, 0.05])
    basis = random().normal(size=(4, 4))
    a = basis @ np.diag(values) @ np.linalg.inv(basis)
    found = linalg.power_iteration(a)
    assert found.value == pytest.approx(-2, rel=1e-10)
    assert found.rate == pytest.approx(abs(ratio), rel=0.02)
    assert np.linalg.norm(found.vector) == pytest.approx(1)
    assert np.linalg.norm(a @ found.vector - found.value * found.vector) <= 1e-11
    assert len(found.residuals) == pytest.approx(np.log(1e-12) / np.log(abs(ratio)), rel=0.25)


@pytest.mark.parametrize("name", ["zero", "one", "identity", "ones", "Hilbert 12", "huge"])
def test_power_iteration_finds_the_dominant_pair(name: str) -> None:
    a = SQUARE[name]
    found = linalg.power_iteration(a)
    unit = np.abs(a).max() or 1.0
    expected = np.linalg.eigvals(a / unit)
    assert found.value / unit == pytest.approx(expected[np.abs(expected).argmax()].real)
    assert found.vector[np.abs(found.vector).argmax()] > 0


@pytest.mark.parametrize("name", ["rotation", "permutation", "defective"])
def test_power_iteration_says_when_it_does_not_settle(name: str) -> None:
    with pytest.raises(UserError, match="within max_steps=500"):
        linalg.power_iteration(SQUARE[name], max_steps=500)


# Singular values.


@every
@pytest.mark.parametrize("full", [False, True])
def test_svd(a: Array, full: bool) -> None:
    u, s, vt = linalg.svd(a, full=full)
    unit = np.abs(a).max() or 1.0
    expected = np.linalg.svd(a / unit, full_matrices=full)
    assert (u.shape, s.shape, vt.shape) == tuple(part.shape for part in expected)
    assert_orthonormal(u)
    assert_orthonormal(vt.T)
    assert np.all(np.diff(s) <= 0)
    assert np.all(s >= 0)
    assert_equal_up_to_rounding(u[:, : len(s)] * s @ vt[: len(s)], a, a)
    assert_equal_up_to_rounding(s / unit, expected[1], a / unit)


@given(any_matrix)
@settings(deadline=None)
def test_svd_of_random_matrices(a: Array) -> None:
    test_svd(a, full=True)


@pytest.mark.long
@pytest.mark.parametrize("n", [100, 200])
@pytest.mark.parametrize("exponent", [0, 6, 12, 20])
def test_large_matrices(n: int, exponent: int) -> None:
    a = with_singular_values(np.logspace(0, -exponent, n), n, n)
    test_svd(a, full=False)
    test_eigh(a)
    test_eigvals(a)


def test_small_singular_values_keep_their_digits() -> None:
    """The least of B D is 1 over the largest of D^-1 B^-1, which NumPy finds to all digits; in
    B D it is far below the rounding of the largest.
    """
    b, scales = random().normal(size=(6, 6)), np.logspace(-25, 0, 6)
    exact = 1 / np.linalg.norm(np.linalg.inv(b) / scales[:, None], 2)
    assert linalg.svd(b * scales)[1][-1] == pytest.approx(exact, rel=1e-13, abs=0)
    assert np.linalg.svd(b * scales)[1][-1] != pytest.approx(exact, rel=0.5, abs=0)


@every
def test_rank_is_numpys(a: Array) -> None:
    unit = np.abs(a).max() or 1.0
    assert linalg.matrix_rank(a) == np.linalg.matrix_rank(a / unit)


def test_rank_of_chosen_accuracy() -> None:
    a = with_singular_values(np.logspace(0, -9, 10), 12, 10)
    assert [linalg.matrix_rank(a, rtol) for rtol in (0.5, 3e-4, 3e-7, 0)] == [1, 4, 7, 10]


@every
def test_pseudo_inverse_fulfils_penroses_conditions(a: Array) -> None:
    unit = np.abs(a).max() or 1.0
    a, x = a / unit, linalg.pinv(a) * unit
    tolerance = 8 * max(a.shape) * EPS * max(1.0, np.linalg.norm(a, 2) * np.linalg.norm(x, 2))
    for found, expected in (
        (a @ x @ a, a),
        (x @ a @ x / max(1.0, np.abs(x).max()), x / max(1.0, np.abs(x).max())),
        ((a @ x).T, a @ x),
        ((x @ a).T, x @ a),
    ):
        assert np.abs(found - expected).max() <= tolerance * max(1.0, np.linalg.norm(a, 2))


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6, 1e12])
def test_condition_number(condition: float) -> None:
    a = with_singular_values(np.geomspace(1, 1 / condition, 7), 9, 7)
    assert linalg.cond(a) == pytest.approx(condition, rel=10 * EPS * condition + 1e-13)


def test_condition_number_of_singular_matrices() -> None:
    assert linalg.cond(np.zeros((2, 2))) == np.inf
    assert linalg.cond(np.diag([1.0, 0.0])) == np.inf


# Low rank.


@given(
    any_matrix.filter(lambda a: np.abs(a).max() > 1e-5), st.integers(0, 9), st.integers(0, 2**32)
)
@settings(deadline=None)
def test_no_matrix_of_the_rank_is_nearer(a: Array, rank: int, seed: int) -> None:
    """Eckart and Young: neither random ones, nor the best one moved a little."""
    rank = min(rank, *a.shape)
    best = linalg.low_rank(a, rank)
    source, room = random(seed), 1e-13 * np.linalg.norm(a)
    for size in (1e-3, 1.0):
        left = best.left + size * source.normal(size=best.left.shape)
        right = best.right + size * source.normal(size=best.right.shape)
        # The best right factor for this left one is a projection: a fairer rival than noise.
        for rival in (left @ right, left @ np.linalg.pinv(left) @ a):
            assert np.linalg.norm(a - rival, 2) >= best.spectral_error - room
            assert np.linalg.norm(a - rival) >= best.frobenius_error - room


@every
def test_the_errors_of_low_rank_are_those_of_the_matrix(a: Array) -> None:
    unit = np.abs(a).max() or 1.0
    a = a / unit
    for rank in range(min(a.shape) + 1):
        best = linalg.low_rank(a, rank)
        error = a - best.left @ best.right
        room = 8 * max(a.shape) * EPS * np.linalg.norm(a)
        assert best.matrix.shape == a.shape
        assert np.linalg.matrix_rank(best.matrix) <= rank
        assert best.spectral_error == pytest.approx(np.linalg.norm(error, 2), abs=room)
        assert best.frobenius_error == pytest.approx(np.linalg.norm(error), abs=room)


# Principal components.


@pytest.mark.parametrize(("n", "d", "k"), [(50, 6, 6), (50, 6, 2), (5, 9, 4), (30, 1, 1)])
def test_pca_is_scikit_learns(n: int, d: int, k: int) -> None:
    data = random().normal(size=(n, d)) @ random(1).normal(size=(d, d)) + 10
    ours, oracle = linalg.PCA.fit(data, k), OraclePCA(k, svd_solver="full").fit(data)
    signs = np.sign(np.sum(oracle.components_ * ours.components, axis=1))
    np.testing.assert_allclose(ours.mean, oracle.mean_)
    np.testing.assert_allclose(ours.components, oracle.components_ * signs[:, None], atol=1e-12)
    np.testing.assert_allclose(ours.explained_variance, oracle.explained_variance_)
    np.testing.assert_allclose(ours.explained_variance_ratio, oracle.explained_variance_ratio_)
    scores = ours.transform(data)
    np.testing.assert_allclose(scores, oracle.transform(data) * signs, atol=1e-11)
    expected = oracle.inverse_transform(oracle.transform(data))
    np.testing.assert_allclose(ours.reconstruct(scores), expected, atol=1e-11)


def test_pca_sees_little_variance_beside_a_large_mean() -> None:
    data = random().normal(size=(100, 3)) * np.array([1.0, 1e-4, 1e-6]) + 1e3
    variances = linalg.PCA.fit(data).explained_variance
    np.testing.assert_allclose(variances, data.var(axis=0, ddof=1), rtol=0.05)


def test_components_point_where_their_largest_entry_is_positive() -> None:
    components = linalg.PCA.fit(random().normal(size=(40, 5))).components
    assert np.all(components[np.arange(5), np.abs(components).argmax(axis=1)] > 0)
    assert_orthonormal(components.T)


# What comes in and what goes out.


def results(a: Array) -> list[Array]:
    symmetric, b = a @ a.T, a[:, 0]
    pca = linalg.PCA.fit(a)
    low = linalg.low_rank(a, 2)
    return [
        *(linalg.projector(a), linalg.project(b, a), linalg.power_iteration(symmetric).vector),
        *(*linalg.qr(a), *linalg.gram_schmidt(a), *linalg.lu(a)[1:], *linalg.svd(a)),
        *(linalg.solve(a, b), linalg.lstsq(a, b), linalg.inv(a), linalg.pinv(a)),
        *(*linalg.eigh(symmetric), linalg.eigvals(a).real, low.left, low.right, low.matrix),
        *(pca.mean, pca.components, pca.explained_variance, pca.explained_variance_ratio),
        *(pca.transform(a), pca.reconstruct(a)),
    ]


def test_float32_gives_float32_with_float64s_care() -> None:
    a = random().normal(size=(5, 5)).astype(np.float32)
    for single, double in zip(results(a), results(a.astype(np.float64)), strict=True):
        assert (single.dtype, double.dtype) == (np.float32, np.float64)
        np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5)
    assert linalg.eigvals(a).dtype == np.complex64
    assert linalg.solve(a, np.ones(5)).dtype == np.float64


def test_whole_numbers_give_float64_and_nothing_is_changed() -> None:
    a = random().integers(-5, 6, (5, 5))
    before = a.copy()
    assert {result.dtype for result in results(a)} == {np.dtype(float)}
    np.testing.assert_array_equal(a, before)


def test_the_rank_of_float32_is_judged_by_its_own_rounding() -> None:
    a = with_singular_values(np.array([1.0, 0.5]), 6, 6)
    assert linalg.matrix_rank(a.astype(np.float32)) == 2
    assert linalg.matrix_rank(a.astype(np.float32).astype(float)) > 2


SINGULAR = np.arange(1.0, 10).reshape(3, 3)  # elimination leaves 1e-16, not 0


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: linalg.solve(SINGULAR, np.ones(3)), "3 x 3 matrix is singular"),
        (lambda: linalg.inv(np.zeros((2, 2))), "2 x 2 matrix is singular"),
        (lambda: linalg.solve(np.eye(3), np.ones(4)), r"\(3, 3\) and \(4,\)"),
        (lambda: linalg.lstsq(np.ones((3, 1)), np.ones((2, 2))), r"\(3, 1\) and \(2, 2\)"),
        (lambda: linalg.project(np.ones(3), np.ones((2, 1))), r"\(2, 1\) and \(3,\)"),
        (lambda: linalg.det(np.ones((2, 3))), r"\(2, 3\) is not square"),
        (lambda: linalg.eigvals(np.ones((2, 3))), r"\(2, 3\) is not square"),
        (lambda: linalg.eigh(np.array([[1.0, 2], [3, 4]])), "not symmetric"),
        (lambda: linalg.svd(np.array([[1.0, np.nan]])), r"\(0, 1\) is nan"),
        (lambda: linalg.norm(np.array([1.0, np.inf])), r"\(1,\) is inf"),
        (lambda: linalg.qr(np.ones(3)), r"\(3,\) is not a matrix"),
        (lambda: linalg.svd(np.ones((0, 3))), r"\(0, 3\)"),
        (lambda: linalg.norm(np.ones((2, 2, 2))), r"\(2, 2, 2\)"),
        (lambda: linalg.eigvals(np.eye(2) * 1j), "complex128"),
        (lambda: linalg.norm(np.ones(2), "nuc"), "ord='nuc'"),
        (lambda: linalg.gram_schmidt(np.array([[1.0, 2], [2, 4]])), "column 1 depends"),
        (lambda: linalg.gram_schmidt(np.ones((2, 3))), "3 columns of 2 numbers"),
        (lambda: linalg.lstsq(np.ones((3, 2)), np.ones(3)), "dependent; pinv"),
        (lambda: linalg.lstsq(np.ones((2, 3)), np.ones(2)), "dependent; pinv"),
        (lambda: linalg.low_rank(np.ones((2, 3)), 3), "rank=3"),
        (lambda: linalg.PCA.fit(np.ones((3, 2))), "all rows are equal"),
        (lambda: linalg.PCA.fit(np.eye(3), 4), "4 components"),
        (lambda: linalg.PCA.fit(np.eye(3)).transform(np.ones((2, 4))), r"\(2, 4\)"),
        (lambda: linalg.PCA.fit(np.eye(3), 2).reconstruct(np.ones((2, 3))), r"\(2, 3\)"),
    ],
)
def test_errors_name_the_value(call: Callable[[], object], says: str) -> None:
    with pytest.raises(UserError, match=says):
        call()


@pytest.mark.parametrize("call", [linalg.eigh, linalg.eigvals, linalg.svd])
def test_an_iteration_that_does_not_end_is_stopped(
    call: Callable[[Array], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linalg, "PATIENCE", 0)
    with pytest.raises(UserError, match="did not converge"):
        call(hilbert(5))
