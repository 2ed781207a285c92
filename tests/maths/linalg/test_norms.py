"""Norms against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from groundup.maths import linalg
from matrices import Array, every, random


@every
@pytest.mark.parametrize("ord", [None, 1, 2, np.inf, "fro", "nuc"])
def test_matrix_norms_equal_numpys(a: Array, ord: float | str | None) -> None:
    unit = np.abs(a).max() or 1.0
    expected = np.linalg.norm(a / unit, ord)
    assert linalg.norm(a, ord) / unit == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("ord", [None, 1, 2, np.inf])
def test_vector_norms_equal_numpys(ord: float | None) -> None:
    v = random().normal(size=30)
    assert linalg.norm(v, ord) == pytest.approx(np.linalg.norm(v, ord), rel=1e-14)


def test_norms_do_not_overflow_or_underflow() -> None:
    assert linalg.norm(np.array([3e200, 4e200])) == pytest.approx(5e200)
    assert linalg.norm(np.array([3e-200, 4e-200])) == pytest.approx(5e-200, abs=0)
