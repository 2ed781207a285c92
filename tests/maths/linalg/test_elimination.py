"""A[rows] = L U: residuals as small as backward stability promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings

from groundup.maths import linalg
from matrices import EPS, Array, any_square, assert_equal_up_to_rounding, random, regular, square


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


def test_solve_without_pivoting_fails() -> None:
    a = np.array([[1e-20, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(linalg.solve(a, np.array([1.0, 2.0])), [1, 1], rtol=1e-15)


def test_a_matrix_of_small_scale_is_not_singular() -> None:
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
def test_determinant_equals_numpys(a: Array) -> None:
    entries = np.abs(a).max()
    assume(entries > 1e-30)
    a = a / entries
    assert linalg.det(a) == pytest.approx(np.linalg.det(a), rel=1e-9, abs=1e-13)


def test_determinant_of_large_and_small_scales() -> None:
    assert linalg.det(np.diag([1e200, 1e200, 1e-300])) == pytest.approx(1e100)
    assert linalg.det(np.diag([-1e200, 1e200])) == -np.inf
    assert linalg.det(np.diag([1e200, 1e200, 0.0])) == 0
    assert linalg.det(np.roll(np.eye(4), 1, axis=0)) == -1
    # A product of a thousand numbers below 1 would underflow.
    assert linalg.det(np.eye(1100)) == 1
    entries = np.ones(1060)
    entries[:3] = 1.1, 1.3, 1.7
    assert linalg.det(np.diag(entries)) == pytest.approx(2.431, rel=1e-15)
