"""A = U diag(s) V^T: against NumPy's, and matrices where NumPy's loses digits and ours does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from groundup.maths import linalg
from groundup.maths.linalg import singular_values
from matrices import (
    EPS,
    Array,
    any_matrix,
    assert_equal_up_to_rounding,
    assert_orthonormal,
    every,
    hilbert,
    random,
    with_singular_values,
)


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
def test_svd_of_large_matrices(n: int, exponent: int) -> None:
    a = with_singular_values(np.logspace(0, -exponent, n), n, n)
    test_svd(a, full=False)


def test_small_singular_values_are_accurate() -> None:
    """The smallest of B D is 1 over the largest of D^-1 B^-1, which NumPy finds accurately; in B D
    it is far below the rounding error of the largest."""
    b, scales = random().normal(size=(6, 6)), np.logspace(-25, 0, 6)
    exact = 1 / np.linalg.norm(np.linalg.inv(b) / scales[:, None], 2)
    assert linalg.svd(b * scales)[1][-1] == pytest.approx(exact, rel=1e-13, abs=0)
    assert np.linalg.svd(b * scales)[1][-1] != pytest.approx(exact, rel=0.5, abs=0)


@every
def test_rank_equals_numpys(a: Array) -> None:
    unit = np.abs(a).max() or 1.0
    assert linalg.matrix_rank(a) == np.linalg.matrix_rank(a / unit)


def test_rank_with_a_given_tolerance() -> None:
    a = with_singular_values(np.logspace(0, -9, 10), 12, 10)
    assert [linalg.matrix_rank(a, rtol) for rtol in (0.5, 3e-4, 3e-7, 0)] == [1, 4, 7, 10]


@every
def test_pseudo_inverse_satisfies_the_penrose_conditions(a: Array) -> None:
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


def test_svd_of_the_largest_floats() -> None:
    """Their singular values overflow; results that depend on ratios do not."""
    ones = np.full((2, 2), 1.7e308)
    full = ones + np.diag([0, -0.85e308])
    assert [linalg.matrix_rank(ones), linalg.matrix_rank(full)] == [1, 2]
    assert linalg.cond(full) == pytest.approx(np.linalg.cond(full / 1.7e308))
    np.testing.assert_allclose(linalg.pinv(ones), np.full((2, 2), 0.25 / 1.7e308))


def test_a_jacobi_iteration_that_does_not_converge_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(singular_values, "MAX_SWEEPS", 0)
    with pytest.raises(ValueError, match="did not converge"):
        linalg.svd(hilbert(5))
