"""The law of how losses fall with compute."""

from typing import Any

import numpy as np

# Your prediction for a run, in bits per byte, and the run's folder: see the lesson.
PREDICTION: float | None = None
RUN: str | None = None


def law(compute: Any, floor: float, a: float, b: float) -> Any:
    """E + a C^(-b), for a number or an array."""
    return floor + a * compute**-b


def fit_law(
    compute: np.ndarray, losses: np.ndarray, floors: list[float]
) -> tuple[float, float, float]:
    """(floor, a, b) of the law that is nearest to the losses, by the sum of squared differences."""
    found = []
    for floor in floors:
        if floor >= losses.min():  # no logarithm of numbers that are not above 0
            continue
        slope, intercept = np.polyfit(np.log(compute), np.log(losses - floor), 1)
        a, b = float(np.exp(intercept)), float(-slope)
        # Compare the losses: near a floor their logarithms diverge.
        error = float(((losses - law(compute, floor, a, b)) ** 2).sum())
        found.append((error, float(floor), a, b))
    return min(found)[1:]


def predict(compute: np.ndarray, losses: np.ndarray, floors: list[float], at: float) -> float:
    """The loss that the fitted law predicts for compute `at`."""
    return float(law(at, *fit_law(compute, losses, floors)))
