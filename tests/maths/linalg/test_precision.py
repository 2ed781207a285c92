"""Dtypes of inputs and results, for all functions at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from groundup.maths import linalg
from matrices import Array, random, with_singular_values


def results(matrix: Array, form: Callable[[Array], Array] = np.asarray) -> list[Array]:
    """The results of all functions for a matrix in this form."""
    a, symmetric, b = form(matrix), form(matrix @ matrix.T), form(matrix[:, 0])
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


def test_float32_gives_float32_computed_in_float64() -> None:
    a = random().normal(size=(5, 5)).astype(np.float32)
    for single, double in zip(results(a), results(a.astype(np.float64)), strict=True):
        assert (single.dtype, double.dtype) == (np.float32, np.float64)
        np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5)
    assert linalg.eigvals(a).dtype == np.complex64
    assert linalg.solve(a, np.ones(5)).dtype == np.float64


def test_integers_give_float64_and_inputs_are_unchanged() -> None:
    a = random().integers(-5, 6, (5, 5))
    before = a.copy()
    assert {result.dtype for result in results(a)} == {np.dtype(float)}
    np.testing.assert_array_equal(a, before)


@pytest.mark.usefixtures("unchecked_types")
def test_lists_are_accepted_as_arrays() -> None:
    a = random().integers(-5, 6, (5, 5))
    for listed, expected in zip(results(a, np.ndarray.tolist), results(a), strict=True):
        np.testing.assert_array_equal(listed, expected)
    rows = [[3, 4], [0, 5]]
    assert (linalg.norm([3, 4]), linalg.det(rows), linalg.matrix_rank(rows)) == (5, 15, 2)
    assert linalg.cond(rows) == linalg.cond(np.array(rows))


def test_the_rank_of_float32_uses_float32_rounding() -> None:
    a = with_singular_values(np.array([1.0, 0.5]), 6, 6)
    assert linalg.matrix_rank(a.astype(np.float32)) == 2
    assert linalg.matrix_rank(a.astype(np.float32).astype(float)) > 2
