"""Eckart-Young: the truncated SVD is the nearest matrix of its rank."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.maths import linalg
from matrices import EPS, Array, any_matrix, every, random


@given(
    any_matrix.filter(lambda a: np.abs(a).max() > 1e-5), st.integers(0, 9), st.integers(0, 2**32)
)
@settings(deadline=None)
def test_no_matrix_of_the_same_rank_is_nearer(a: Array, rank: int, seed: int) -> None:
    """Neither random matrices nor small perturbations of the best one are nearer."""
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
def test_low_rank_errors_are_those_of_the_approximation(a: Array) -> None:
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
