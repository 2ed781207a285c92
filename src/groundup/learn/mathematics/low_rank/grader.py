"""Trials of 1.5: points and matrices against those of `maths.linalg`."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths import linalg


def trials(seed: int) -> Iterator[Trial]:
    """Projections, then approximations of several shapes and ranks, and their errors."""
    rng = np.random.default_rng(seed)
    yield _project("onto an axis", np.array([2.0, 1.0]), np.array([4.0, 0.0]))
    yield _project("in space", rng.normal(size=3), 2 * rng.normal(size=3))
    yield _project("at an obtuse angle", np.array([-2.0, 1.0]), np.array([2.0, 0.0]))
    square, wide = rng.normal(size=(3, 3)), rng.normal(size=(3, 5))
    tall = rng.normal(size=(6, 4))
    for about, a, r in (
        ("rank 1 of a 3 × 3 matrix", square, 1),
        ("rank 2 of a wide matrix", wide, 2),
        ("rank 2 of a tall matrix", tall, 2),
        ("full rank: nothing is lost", square, 3),
    ):
        yield _low_rank(about, a, r)
    for about, a, r in (
        ("the error of rank 1", square, 1),
        ("the error of rank 1 of a tall matrix", tall, 1),
        ("the error of full rank", square, 3),
    ):
        yield _error(about, a, r)


def _project(about: str, v: np.ndarray, u: np.ndarray) -> Trial:
    def run(part: ModuleType) -> Any:
        return part.project(v, u)

    return Trial(about, run, linalg.project(v, u), {"v": v, "u": u})


def _low_rank(about: str, a: np.ndarray, r: int) -> Trial:
    nearest = linalg.low_rank(a, r)
    expected = {
        "shape of left": [a.shape[0], r],
        "shape of right": [r, a.shape[1]],
        "left @ right": nearest.matrix,
    }

    def run(part: ModuleType) -> Any:
        left, right = part.low_rank(a, r)
        return {
            "shape of left": list(np.shape(left)),
            "shape of right": list(np.shape(right)),
            "left @ right": left @ right,
        }

    return Trial(about, run, expected, {"a": a, "r": r}, rtol=1e-7, atol=1e-9)


def _error(about: str, a: np.ndarray, r: int) -> Trial:
    def run(part: ModuleType) -> Any:
        return part.error(a, r)

    expected = linalg.low_rank(a, r).frobenius_error
    return Trial(about, run, expected, {"a": a, "r": r}, atol=1e-9)
