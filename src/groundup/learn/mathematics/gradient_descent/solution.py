"""1.3 Gradient descent, solved."""

from collections.abc import Callable

import numpy as np


def descend(
    gradient: Callable[[np.ndarray], np.ndarray], x: np.ndarray, rate: float, steps: int
) -> np.ndarray:
    points = [x]
    for _ in range(steps):
        # A new array each time: -= would change the stored points and the caller's x.
        points.append(points[-1] - rate * gradient(points[-1]))
    return np.stack(points)


def best_rate(curvatures: np.ndarray) -> float:
    # The rate at which the steepest and the flattest direction are equally slow.
    return float(2 / (curvatures.min() + curvatures.max()))
