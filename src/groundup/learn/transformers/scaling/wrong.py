"""The commonest mistakes with scaling laws."""

from collections.abc import Callable
from typing import Any

import numpy as np

REPLACES = {
    "rising_law": "law",
    "floor_in_the_power": "law",
    "slope_for_b": "fit_law",
    "floor_not_taken_away": "fit_law",
    "log_of_a": "fit_law",
    "first_floor": "fit_law",
    "error_of_logarithms": "fit_law",
    "absolute_errors": "fit_law",
    "straightest": "fit_law",
    "high_floors_kept": "fit_law",
    "straight_on": "predict",
    "floor_forgotten": "law",
    "a_in_the_power": "law",
    "compute_as_it_is": "fit_law",
    "slope_and_intercept_exchanged": "fit_law",
}

Fit = tuple[float, float, float]
Line = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _line(compute: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Slope and intercept."""
    return np.polyfit(np.log(compute), np.log(above), 1)


def _fits(
    compute: np.ndarray, losses: np.ndarray, floors: list[float], line: Line = _line
) -> list[Any]:
    found = []
    for floor in floors:
        if floor < losses.min():
            slope, intercept = line(compute, losses - floor)
            a, b = float(np.exp(intercept)), float(-slope)
            error = float(((losses - floor - a * compute**-b) ** 2).sum())
            found.append((error, float(floor), a, b))
    return found


def rising_law(compute: Any, floor: float, a: float, b: float) -> Any:
    """The minus in the exponent is missing: with it, the loss falls as compute grows."""
    return floor + a * compute**b


def floor_in_the_power(compute: Any, floor: float, a: float, b: float) -> Any:
    """The floor is multiplied too. It is added to a C^(-b), and never shrinks."""
    return (floor + a) * compute**-b


def slope_for_b(compute: np.ndarray, losses: np.ndarray, floors: list[float]) -> Fit:
    """b has the sign of the slope. The line falls, so its slope is -b, and b is positive."""
    _, floor, a, b = min(_fits(compute, losses, floors))
    return floor, a, -b


def floor_not_taken_away(compute: np.ndarray, losses: np.ndarray, floors: list[float]) -> Fit:
    """The line is fitted to log(losses). It is log(losses - floor) that is a straight line."""
    slope, intercept = np.polyfit(np.log(compute), np.log(losses), 1)
    a, b = float(np.exp(intercept)), float(-slope)
    errors = [(float(((losses - f - a * compute**-b) ** 2).sum()), float(f)) for f in floors]
    return min(errors)[1], a, b


def log_of_a(compute: np.ndarray, losses: np.ndarray, floors: list[float]) -> Fit:
    """The intercept is log a: take its exp."""
    _, floor, a, b = min(_fits(compute, losses, floors))
    return floor, float(np.log(a)), b


def first_floor(compute: np.ndarray, losses: np.ndarray, floors: list[float]) -> Fit:
    """The first floor is taken, whichever it is. Keep the one whose law is nearest to the
    losses."""
    return _fits(compute, losses, floors)[0][1:]


def error_of_logarithms(compute: np.ndarray, losses: np.ndarray, floors: list[float]) -> Fit:
    """The floors are compared by errors of logarithms. Compare the losses themselves:
    (losses - law)²."""
    found = []
    for floor in floors:
        if floor < losses.min():
            x, y = np.log(compute), np.log(losses - floor)
            slope, intercept = np.polyfit(x, y, 1)
            error = float(((y - slope * x - intercept) ** 2).sum())
            found.append((error, float(floor), float(np.exp(intercept)), float(-slope)))
    return min(found)[1:]


def absolute_errors(compute: np.ndarray, losses: np.ndarray, floors: list[float]) -> Fit:
    """The floors are compared by the sum of absolute differences. Square them: (losses - law)²."""
    fits = [one[1:] for one in _fits(compute, losses, floors)]
    return min(fits, key=lambda f: float(np.abs(losses - f[0] - f[1] * compute ** -f[2]).sum()))


def straightest(compute: np.ndarray, losses: np.ndarray, floors: list[float]) -> Fit:
    """The floor is chosen whose logarithms fit a line best (R², or the correlation). Compare the
    losses themselves: the sum of (losses - law)²."""

    def straightness(fit: Fit) -> float:
        return float(np.corrcoef(np.log(compute), np.log(losses - fit[0]))[0, 1] ** 2)

    return max([one[1:] for one in _fits(compute, losses, floors)], key=straightness)


def high_floors_kept(compute: np.ndarray, losses: np.ndarray, floors: list[float]) -> Fit:
    """A floor above a loss is tried, and the logarithm of a negative number is NaN. Leave out
    floors that are not below every loss."""
    floor = max(floors)
    above = np.log(losses - floor)
    slope, intercept = (above[-1] - above[0]) / np.log(compute[-1] / compute[0]), above[0]
    return float(floor), float(np.exp(intercept)), float(-slope)


def straight_on(compute: np.ndarray, losses: np.ndarray, floors: list[float], at: float) -> float:
    """A straight line through the last two losses is extrapolated, which would fall below zero
    eventually. Use the law."""
    slope = (losses[-1] - losses[-2]) / (compute[-1] - compute[-2])
    return float(losses[-1] + slope * (at - compute[-1]))


def floor_forgotten(compute: Any, floor: float, a: float, b: float) -> Any:
    """The floor is missing: it is added to a C^(-b)."""
    return a * compute**-b


def a_in_the_power(compute: Any, floor: float, a: float, b: float) -> Any:
    """a was raised to the power, too. Raise only C: a * compute ** -b."""
    return floor + (a * compute) ** -b


def compute_as_it_is(compute: np.ndarray, losses: np.ndarray, floors: list[float]) -> Fit:
    """The line is fitted over compute itself. It is straight over log(compute)."""
    found = _fits(compute, losses, floors, lambda c, above: np.polyfit(c, np.log(above), 1))
    return min(found)[1:]


def slope_and_intercept_exchanged(
    compute: np.ndarray, losses: np.ndarray, floors: list[float]
) -> Fit:
    """Slope and intercept are exchanged: np.polyfit gives the highest power first, the slope."""
    found = _fits(compute, losses, floors, lambda c, above: _line(c, above)[::-1])
    return min(found)[1:]
