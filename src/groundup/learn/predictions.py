"""How good a learner's predictions were, and how well calibrated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from groundup.learn.own import Prediction


@dataclass(frozen=True)
class Calibration:
    """The number of predictions, how many were right, and how sure the learner was.

    `brier` is the mean of (confidence - right)²: 0 is perfect, and "50 %" on every question gives
    0.25. Confidence and Brier score are over the predictions that have a confidence.
    """

    made: int
    right: int
    said: int = 0
    confidence: float = 0.0
    right_of_said: float = 0.0
    brier: float = 0.0

    @property
    def sentence(self) -> str:
        """A summary for the learner."""
        if not self.made:
            return (
                "No predictions yet: groundup learn predict NUMBER CHOICE before you run anything."
            )
        said = f"Predictions: {self.right} of {self.made} right."
        if not self.said:
            return f"{said} With --sure PERCENT you also learn how well you know what you know."
        gap = self.confidence - self.right_of_said
        verdict = "surer than you were right" if gap > 0.1 else "less sure than you were right"
        verdict = "about as sure as you were right" if abs(gap) <= 0.1 else verdict
        return (
            f"{said} Where you said how sure you were: {self.confidence:.0%} sure, "
            f"{self.right_of_said:.0%} right: {verdict} (Brier score {self.brier:.2f}, "
            "0.25 is a coin)."
        )


def calibration(predictions: Iterable[Prediction]) -> Calibration:
    """Compare the predictions with the right answers."""
    made = list(predictions)
    pairs = [(one.confidence, one.right) for one in made if one.confidence is not None]
    right = sum(one.right for one in made)
    if not pairs:
        return Calibration(len(made), right)
    sure, hit = np.array(pairs, dtype=float).T
    return Calibration(
        len(made),
        right,
        said=len(pairs),
        confidence=float(sure.mean()),
        right_of_said=float(hit.mean()),
        brier=float(((sure - hit) ** 2).mean()),
    )
