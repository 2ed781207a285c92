"""2.2 Activations and initialization.

The lesson: groundup learn 2.2        Check it: groundup learn check 2.2
"""

from collections.abc import Sequence

import numpy as np


def relu_backward(g: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return the gradient for z, given the gradient g of max(0, z); all of the same shape."""
    raise NotImplementedError


def he_std(fan_in: int) -> float:
    """Return the standard deviation of weights before a ReLU."""
    raise NotImplementedError


def spreads(x: np.ndarray, weights: Sequence[np.ndarray]) -> list[float]:
    """Return the standard deviation of x after each layer x ← max(0, x Wᵀ)."""
    raise NotImplementedError
