"""Projections against least squares, and their defining properties."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from groundup.maths import linalg
from matrices import Array, any_matrix, random


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


def test_a_projection_depends_on_the_span_only() -> None:
    basis = random().normal(size=(6, 2))
    dependent = np.hstack([basis, basis @ np.array([[1.0], [2.0]])])
    scaled = basis * np.array([1e-30, 1e30])
    for other in (dependent, scaled):
        np.testing.assert_allclose(linalg.projector(other), linalg.projector(basis), atol=1e-14)
