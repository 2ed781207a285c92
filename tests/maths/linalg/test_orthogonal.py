"""A = Q R: against NumPy's, and the orthogonality of Q for each algorithm."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.maths import linalg
from matrices import (
    EPS,
    Array,
    assert_equal_up_to_rounding,
    assert_orthonormal,
    every,
    hilbert,
    random,
    with_singular_values,
)


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
def test_gram_schmidt_equals_qr_for_a_well_conditioned_matrix(modified: bool) -> None:
    a = random().normal(size=(20, 6))
    q, r = linalg.gram_schmidt(a, modified=modified)
    householder = linalg.qr(a)
    np.testing.assert_allclose(q, householder[0], atol=1e-13)
    np.testing.assert_allclose(r, householder[1], atol=1e-13)


@pytest.mark.parametrize("exponent", [3, 5, 7])
def test_loss_of_orthogonality_grows_as_in_theory(exponent: int) -> None:
    """EPS k^2 (Giraud et al. 2005), EPS k (Bjorck 1967) and EPS, the last for every k."""
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
def test_gram_schmidt_of_a_hilbert_matrix_reproduces_it(modified: bool) -> None:
    q, r = linalg.gram_schmidt(hilbert(9), modified=modified)
    assert_equal_up_to_rounding(q @ r, hilbert(9), hilbert(9))


def test_lstsq() -> None:
    a, b = random().normal(size=(30, 5)), random(1).normal(size=(30, 3))
    np.testing.assert_allclose(linalg.lstsq(a, b), np.linalg.lstsq(a, b)[0], atol=1e-13)
    np.testing.assert_allclose(linalg.lstsq(a, b[:, 0]), linalg.lstsq(a, b)[:, 0], atol=1e-15)


def test_lstsq_is_accurate_where_the_normal_equations_are_not() -> None:
    """Lauchli's matrix: A^T A rounds to a singular matrix, but x is (1, 1, 1)."""
    a = np.vstack([np.ones(3), 1e-9 * np.eye(3)])
    assert np.linalg.matrix_rank(a.T @ a) == 1
    np.testing.assert_allclose(linalg.lstsq(a, a @ np.ones(3)), 1, atol=1e-6)
