"""Errors for bad input name the value in one sentence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from groundup.maths import linalg

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
        (lambda: linalg.norm(3.0), r"shape \(\)"),
        (lambda: linalg.eigvals(np.eye(2) * 1j), "complex128"),
        (lambda: linalg.svd([[1, 2], [3]]), "equal lengths"),
        (lambda: linalg.svd([["1", "2"]]), "<U1"),
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
    with pytest.raises(ValueError, match=says):
        call()
