"""Trials of 1.3: walks against those of the product's GradientDescent."""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from groundup.learn.exercise import Trial
from groundup.maths.optimize import GradientDescent, evaluate, minimize
from groundup.maths.tensor import Tensor


def trials(seed: int) -> Iterator[Trial]:
    """A bowl of one dimension, valleys of several, a landscape with curves; then rates."""
    rng = np.random.default_rng(seed)
    start = rng.integers(2, 6, size=1).astype(float)
    yield _walk("a bowl", "x²", lambda x: (x * x).sum(), start, 0.25, 2)
    curves = np.array([1.0, 8.0])
    valley = rng.normal(size=2)
    yield _walk(
        "a long valley", "½ (x² + 8 y²)", lambda x: (x * x * curves).sum() / 2, valley, 0.1, 3
    )
    place = rng.normal(size=3)
    yield _walk(
        "a landscape that is not quadratic",
        "Σ (x⁴/4 + cos x)",
        lambda x: (x**4 / 4 + x.cos()).sum(),
        place,
        0.05,
        5,
    )
    yield _walk("no steps at all", "x²", lambda x: (x * x).sum(), start, 0.25, 0)
    for about, values in (
        ("two directions", [1.0, 9.0]),
        ("several directions, in any order", [3.0, 8.0, 0.5, 2.0, 2.5]),
        ("all alike", [4.0, 4.0]),
    ):
        yield _rate(about, np.array(values))


def _walk(
    about: str,
    formula: str,
    f: Callable[[Tensor], Tensor],
    start: np.ndarray,
    rate: float,
    steps: int,
) -> Trial:
    # A tolerance below 0 is never reached, so every step is taken.
    walked = minimize(f, start, GradientDescent(rate), steps=steps, tolerance=-1.0)

    def gradient(x: np.ndarray) -> np.ndarray:
        return evaluate(f, x).gradient

    def run(part: ModuleType) -> Any:
        return part.descend(gradient, start, rate, steps)

    shown = {"f": formula, "x": start, "rate": rate, "steps": steps}
    return Trial(about, run, walked.points, shown, rtol=1e-9)


def _rate(about: str, curvatures: np.ndarray) -> Trial:
    best = GradientDescent.tuned(float(curvatures.min()), float(curvatures.max())).rate

    def run(part: ModuleType) -> Any:
        return part.best_rate(curvatures)

    return Trial(about, run, best, {"curvatures": curvatures})
