"""2.2 Activations and initialization, solved."""

from collections.abc import Sequence

import numpy as np


def relu_backward(g: np.ndarray, z: np.ndarray) -> np.ndarray:
    return g * (z > 0)


def he_std(fan_in: int) -> float:
    # fan_in terms add up, and ReLU keeps half of the mean square.
    return (2 / fan_in) ** 0.5


def spreads(x: np.ndarray, weights: Sequence[np.ndarray]) -> list[float]:
    found = []
    for w in weights:
        x = np.maximum(0, x @ w.T)
        found.append(float(x.std()))
    return found
