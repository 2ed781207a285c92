"""1.8 Bayes and intervals, solved."""

from math import sqrt

import numpy as np


def posterior(prior: np.ndarray, likelihoods: np.ndarray) -> np.ndarray:
    joint = prior * likelihoods
    return joint / joint.sum()


def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
    center = (successes + z**2 / 2) / (n + z**2)
    radius = z / (n + z**2) * sqrt(successes * (n - successes) / n + z**2 / 4)
    return max(0.0, center - radius), min(1.0, center + radius)


def paired_difference(
    first: np.ndarray, second: np.ndarray, draws: np.ndarray
) -> tuple[float, float]:
    # Take the difference first: the difficulty of a question, which affects both, cancels.
    means = (first - second)[draws].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
