"""Two classes of points in the plane that no straight line separates: moons and spirals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer


@dataclass(frozen=True)
class Points:
    """Points in the plane and the class of each, 0 or 1; of every two in turn, one of each."""

    x: Float[np.ndarray, "n 2"]
    labels: Integer[np.ndarray, " n"]


def two_moons(n: int, rng: np.random.Generator, noise: float = 0.2) -> Points:
    """Draw from two half circles of radius 1 that reach into each other, plus N(0, noise²).

        class 0:  (cos t, sin t)        class 1:  (1 - cos t, 1/2 - sin t),    t from U(0, π)

    With this much noise they overlap a little, so that not even the best boundary is always right.
    """
    labels = np.arange(n) % 2
    t = np.pi * rng.random(n)
    upper = np.stack([np.cos(t), np.sin(t)], axis=1)
    lower = np.stack([1 - np.cos(t), 0.5 - np.sin(t)], axis=1)
    return _noisy(np.where(labels[:, None] == 0, upper, lower), labels, rng, noise)


def two_spirals(n: int, rng: np.random.Generator, noise: float = 0.03) -> Points:
    """Draw from two arms that wind out of the middle one and a half times, plus N(0, noise²).

        r (cos φ, sin φ) with φ = 3π r, and φ = 3π r + π for class 1,    r² from U(0, 1)

    Source: the two-spirals problem of Lang and Witbrock (1988), "Learning to tell two spirals
    apart", with fewer turns.
    """
    labels = np.arange(n) % 2
    r = np.sqrt(rng.random(n))
    angle = 3 * np.pi * r + np.pi * labels
    arms = r[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _noisy(arms, labels, rng, noise)


def _noisy(
    x: Float[np.ndarray, "n 2"],
    labels: Integer[np.ndarray, " n"],
    rng: np.random.Generator,
    noise: float,
) -> Points:
    return Points((x + noise * rng.standard_normal(x.shape)).astype(np.float32), labels)
