"""The commonest wrong answers to 1.3, each with the hint that names it."""

from collections.abc import Callable

import numpy as np

Gradient = Callable[[np.ndarray], np.ndarray]
REPLACES = {
    "uphill": "descend",
    "without_start": "descend",
    "one_point_too_few": "descend",
    "only_the_end": "descend",
    "in_place": "descend",
    "always_the_first_slope": "descend",
    "unit_steps": "descend",
    "edge": "best_rate",
    "steepest_alone": "best_rate",
    "averaged": "best_rate",
    "first_and_last": "best_rate",
    "rate_and_half": "best_rate",
    "copied_once": "descend",
    "one_step_too_many": "descend",
    "rate_forgotten": "descend",
    "half_of_it": "best_rate",
    "flattest_alone": "best_rate",
    "without_start_as_an_array": "descend",
}


def uphill(gradient: Gradient, x: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """This walks uphill: the gradient points to where f increases, so subtract it."""
    points = [x]
    for _ in range(steps):
        points.append(points[-1] + rate * gradient(points[-1]))
    return np.stack(points)


def without_start(gradient: Gradient, x: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """The start is missing: n steps give n + 1 points."""
    return _walk(gradient, x, rate, steps)[1:]


def one_point_too_few(gradient: Gradient, x: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """The last point is missing: n points have only n - 1 steps between them."""
    return _walk(gradient, x, rate, steps)[:-1]


def only_the_end(gradient: Gradient, x: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """Only the last point is returned. Return all points, the start first."""
    return _walk(gradient, x, rate, steps)[-1]


def in_place(gradient: Gradient, x: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """x -= … changes the input array itself, and every entry of the list of points is that array.
    Write x = x - …, which makes a new one."""
    points = [x]
    for _ in range(steps):
        x -= rate * gradient(x)
        points.append(x)
    return np.stack(points)


def always_the_first_slope(
    gradient: Gradient, x: np.ndarray, rate: float, steps: int
) -> np.ndarray:
    """Every step uses the slope at the start. Compute the gradient again at each point."""
    g = gradient(x)
    return np.stack([x - rate * step * g for step in range(steps + 1)])


def unit_steps(gradient: Gradient, x: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """The gradient was divided by its length, so all steps are equally long. Do not divide: steps
    should get shorter where the ground gets flat."""
    return _walk(lambda at: gradient(at) / np.linalg.norm(gradient(at)), x, rate, steps)


def edge(curvatures: np.ndarray) -> float:
    """2 / λ_max is the limit from which on the steepest direction no longer shrinks, not the best
    rate."""
    return float(2 / curvatures.max())


def steepest_alone(curvatures: np.ndarray) -> float:
    """1 / λ_max is best only for the steepest direction; the flattest could go faster. The best
    rate for both is 2 / (λ_min + λ_max)."""
    return float(1 / curvatures.max())


def averaged(curvatures: np.ndarray) -> float:
    """This takes the mean of all curvatures. Only the two extremes count: the slowest direction
    sets the pace."""
    return float(1 / curvatures.mean())


def first_and_last(curvatures: np.ndarray) -> float:
    """The first and the last curvature were taken for the extremes. They come in any order: use
    .min() and .max()."""
    return float(2 / (curvatures[0] + curvatures[-1]))


def rate_and_half(curvatures: np.ndarray) -> float:
    """The fraction is upside down: the steeper the ground, the smaller the step, so the curvatures
    belong in the denominator."""
    return float((curvatures.min() + curvatures.max()) / 2)


def _walk(gradient: Gradient, x: np.ndarray, rate: float, steps: int) -> np.ndarray:
    points = [x]
    for _ in range(steps):
        points.append(points[-1] - rate * gradient(points[-1]))
    return np.stack(points)


def copied_once(gradient: Gradient, x: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """All points are the last one: -= changes the one array that is every entry of the list. Write
    x = x - …, which makes a new one."""
    x = x.copy()
    points = [x]
    for _ in range(steps):
        x -= rate * gradient(x)
        points.append(x)
    return np.stack(points)


def one_step_too_many(gradient: Gradient, x: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """There is one point too many: n + 1 points, the start included, have n steps between them."""
    return _walk(gradient, x, rate, steps + 1)


def rate_forgotten(gradient: Gradient, x: np.ndarray, rate: float, steps: int) -> np.ndarray:
    """The rate is missing: a step is rate times the gradient."""
    return _walk(gradient, x, 1.0, steps)


def half_of_it(curvatures: np.ndarray) -> float:
    """The 2 in the numerator is missing: the mean of the two extremes is (λ_min + λ_max) / 2, and
    the best rate is one over it."""
    return float(1 / (curvatures.min() + curvatures.max()))


def flattest_alone(curvatures: np.ndarray) -> float:
    """1 / λ_min is best only for the flattest direction; in a steep one it jumps further and
    further. The best rate for both is 2 / (λ_min + λ_max)."""
    return float(1 / curvatures.min())


def without_start_as_an_array(
    gradient: Gradient, x: np.ndarray, rate: float, steps: int
) -> np.ndarray:
    """The start is missing: n steps give n + 1 points."""
    return np.array(list(_walk(gradient, x, rate, steps)[1:]))
