"""1.3 Gradient descent and its step size.

The lesson: groundup learn 1.3        Check it: groundup learn check 1.3
"""

from collections.abc import Callable

import numpy as np


def descend(
    gradient: Callable[[np.ndarray], np.ndarray], x: np.ndarray, rate: float, steps: int
) -> np.ndarray:
    """Return all points of x ← x - rate · gradient(x), the start included: (steps + 1, n)."""
    raise NotImplementedError


def best_rate(curvatures: np.ndarray) -> float:
    """Return the step size that is best for a quadratic with these curvatures."""
    raise NotImplementedError
