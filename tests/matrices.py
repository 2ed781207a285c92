"""Matrices for the tests of linear algebra: easy ones, nearly singular ones, and worse.

Errors are counted in roundings: EPS times the norm of the matrix times its size. A few of those
is what "backward stable" allows, whatever the condition number.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

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


def all_solvable(cases: dict[str, Array]) -> dict[str, Array]:
    singular = ("zero", "rank", "ones", "nilpotent")
    return {name: a for name, a in cases.items() if not any(word in name for word in singular)}


regular = pytest.mark.parametrize("a", all_solvable(SQUARE).values(), ids=all_solvable(SQUARE))


def roundings(error: Array, a: Array) -> float:
    """The error in units of the rounding of a matrix of a's norm and size."""
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
    """Integer, real, sparse, graded and low-rank matrices: often singular, often not."""

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
