"""Where the part of 1.3 enters the product: a step of `GradientDescent`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType

import numpy as np

from groundup.learn.exercise import replaced
from groundup.maths.optimize import GradientDescent, Point, minimize
from groundup.maths.tensor import Tensor

USED_BY = "groundup.maths.optimize.minimize with GradientDescent"


def swap(part: ModuleType) -> AbstractContextManager[None]:
    """The part takes each step, one at a time."""

    def step(
        self: GradientDescent, f: Callable[[Tensor], Tensor], now: Point, before: Point
    ) -> np.ndarray:
        points = part.descend(lambda x: now.gradient, now.x, self.rate, 1)
        # The next step starts from an array again, even if the points are lists.
        return np.asarray(points[-1])

    return replaced(GradientDescent, "__call__", step)


def try_it() -> list[float]:
    """The end point of a short walk in a valley."""
    curves = np.array([1.0, 8.0])
    walked = minimize(
        lambda x: (x * x * curves).sum() / 2, [3.0, 1.0], GradientDescent(0.2), steps=4
    )
    return [float(x) for x in walked.points[-1]]
