"""3.8 Scaling: predict the loss of a run

The lesson: groundup learn 3.8        Check it: groundup learn check 3.8
"""

import numpy as np

# Your prediction for a run, in bits per byte, and the run's folder: see the lesson.
PREDICTION: float | None = None
RUN: str | None = None


def law(compute: float | np.ndarray, floor: float, a: float, b: float) -> float | np.ndarray:
    """E + a C^(-b), for a number or an array."""
    raise NotImplementedError


def fit_law(
    compute: np.ndarray, losses: np.ndarray, floors: list[float]
) -> tuple[float, float, float]:
    """(floor, a, b) of the law that is nearest to the losses, by the sum of squared differences.

    compute, losses: (runs,).
    """
    raise NotImplementedError


def predict(compute: np.ndarray, losses: np.ndarray, floors: list[float], at: float) -> float:
    """The loss that the fitted law predicts for compute `at`. compute, losses: (runs,)."""
    raise NotImplementedError
