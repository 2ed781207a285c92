"""Trials of 1.4: matrices against those of `maths.transforms` and `maths.linalg`."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths import einsum, linalg, transforms
from groundup.maths.tensor import Tensor


def trials(seed: int) -> Iterator[Trial]:
    """Rotations, compositions, different numbers of points, areas with both signs."""
    rng = np.random.default_rng(seed)
    for about, angle in (("a sixth of a turn", np.pi / 3), ("an angle", rng.uniform(0.3, 1.2))):
        yield _rotation(about, float(angle))
    stretch, turn = transforms.scaling(2.0, 1.0), transforms.rotation(np.pi / 2)
    yield _after("stretch, then turn", stretch, turn)
    yield _after("shear, then stretch", transforms.shear(1.5), rng.normal(size=(2, 2)))
    yield _moved("one point, sheared", transforms.shear(2.0), np.array([[1.0, 3.0]]))
    yield _moved("three points", rng.normal(size=(2, 2)), rng.normal(size=(3, 2)))
    yield _moved("two points", rng.normal(size=(2, 2)), rng.normal(size=(2, 2)))
    yield _area("a slant", transforms.shear(0.5, 0.25))
    yield _area("a mirror", transforms.reflection(0.4))
    yield _area("any matrix", rng.normal(size=(2, 2)))


def _rotation(about: str, angle: float) -> Trial:
    def run(part: ModuleType) -> Any:
        return part.rotation(angle)

    return Trial(about, run, transforms.rotation(angle), {"angle": angle})


def _after(about: str, first: np.ndarray, second: np.ndarray) -> Trial:
    both = einsum("ij,jk->ik", Tensor(second), Tensor(first)).data

    def run(part: ModuleType) -> Any:
        return part.after(first, second)

    return Trial(about, run, both, {"first": first, "second": second})


def _moved(about: str, matrix: np.ndarray, points: np.ndarray) -> Trial:
    expected = einsum("ij,nj->ni", Tensor(matrix), Tensor(points)).data

    def run(part: ModuleType) -> Any:
        return part.moved(matrix, points)

    return Trial(about, run, expected, {"matrix": matrix, "points": points})


def _area(about: str, matrix: np.ndarray) -> Trial:
    def run(part: ModuleType) -> Any:
        return part.area_factor(matrix)

    return Trial(about, run, linalg.det(matrix), {"matrix": matrix})
