"""5.1 Preferences, and one number for each

The lesson: groundup learn 5.1        Check it: groundup learn check 5.1
"""

import numpy as np


def beats(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The probability that `one` wins: sigmoid of the difference of ratings."""
    raise NotImplementedError


def ratings(wins: np.ndarray) -> np.ndarray:
    """The most likely ratings, the first one 0. wins: (n, n), how often i beat j. Result: (n,)."""
    raise NotImplementedError
