"""Eigenvalues against NumPy's, known spectra, and the theoretical rate of convergence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings

from groundup.maths import linalg
from groundup.maths.linalg import eigenvalues
from matrices import (
    EPS,
    SQUARE,
    Array,
    any_square,
    assert_equal_up_to_rounding,
    assert_orthonormal,
    hilbert,
    random,
    square,
    with_singular_values,
)


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


@pytest.mark.long
@pytest.mark.parametrize("n", [100, 200])
@pytest.mark.parametrize("exponent", [0, 6, 12, 20])
def test_eigenvalues_of_large_matrices(n: int, exponent: int) -> None:
    a = with_singular_values(np.logspace(0, -exponent, n), n, n)
    test_eigh(a)
    test_eigvals(a)


@pytest.mark.parametrize("n", [2, 3, 5, 8, 30])
def test_eigvals_equal_numpys_where_well_conditioned(n: int) -> None:
    a = random(n).normal(size=(n, n))
    expected, values = np.linalg.eigvals(a), linalg.eigvals(a)
    nearest = np.abs(values[:, None] - expected).argmin(axis=1)
    assert sorted(nearest) == list(range(n))
    np.testing.assert_allclose(values, expected[nearest], atol=1e-12)
    assert np.all(values.imag[:-1][values.imag[1:] < 0] > 0)  # a pair: the positive part first


def test_eigvals_of_a_badly_scaled_matrix_are_accurate() -> None:
    a, scales = random().normal(size=(8, 8)), np.logspace(0, 30, 8)
    scaled = a * scales / scales[:, None]  # D^-1 A D
    np.testing.assert_allclose(linalg.eigvals(scaled), linalg.eigvals(a), rtol=1e-12)


def test_eigvals_of_the_largest_floats() -> None:
    """The norm of a row overflows."""
    a = np.array([[2.0, 2.0], [-2.0, -1.0]])
    found = linalg.eigvals(a * 0.8e308) / 0.8e308
    np.testing.assert_allclose(found, linalg.eigvals(a), rtol=1e-14)


def test_roots_of_a_polynomial() -> None:
    np.testing.assert_allclose(
        linalg.eigvals(SQUARE["companion"]), np.arange(8.0, 0, -1), rtol=1e-8
    )


@pytest.mark.parametrize("ratio", [0.3, 0.7, -0.9])
def test_power_iteration_converges_at_the_theoretical_rate(ratio: float) -> None:
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
def test_power_iteration_raises_if_it_does_not_converge(name: str) -> None:
    with pytest.raises(ValueError, match="within max_steps=500"):
        linalg.power_iteration(SQUARE[name], max_steps=500)


@pytest.mark.parametrize("call", [linalg.eigh, linalg.eigvals])
def test_qr_iteration_raises_if_it_does_not_converge(
    call: Callable[[Array], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eigenvalues, "MAX_STEPS", 0)
    with pytest.raises(ValueError, match="did not converge"):
        call(hilbert(5))
