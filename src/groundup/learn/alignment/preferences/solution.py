"""From comparisons to ratings."""

import numpy as np


def beats(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The probability that `one` wins: sigmoid of the difference of ratings."""
    apart = np.asarray(one, float) - other
    small = np.exp(-np.abs(apart))  # of a number below 0, so it never overflows
    return np.where(apart >= 0, 1.0, small) / (1 + small)


def ratings(wins: np.ndarray) -> np.ndarray:
    """The most likely ratings, the first one 0. wins: (n, n), how often i beat j. Result: (n,)."""
    games = wins + wins.T
    won = wins.sum(1)
    found = np.zeros(len(wins))
    # The slope changes by at most a quarter of a player's games, twice over: this step never
    # overshoots.
    rate = 2 / games.sum(1).max()
    for _ in range(3_000):
        step = rate * (won - (games * beats(found[:, None], found[None, :])).sum(1))
        found += step
        if np.abs(step).max() < 1e-9:
            break
    return found - found[0]
