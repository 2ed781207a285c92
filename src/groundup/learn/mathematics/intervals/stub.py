"""1.8 Bayes and intervals: is this difference real?

The lesson: groundup learn 1.8        Check it: groundup learn check 1.8
"""

import numpy as np


def posterior(prior: np.ndarray, likelihoods: np.ndarray) -> np.ndarray:
    """Return p(h | x) of k explanations from p(h) and p(x | h), all of shape (k,)."""
    raise NotImplementedError


def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Return the low and the high end of Wilson's interval for successes in n trials."""
    raise NotImplementedError


def paired_difference(
    first: np.ndarray, second: np.ndarray, draws: np.ndarray
) -> tuple[float, float]:
    """Return the ends of the 95 % bootstrap interval of mean(first - second), in pairs.

    first, second   results on the same n questions, (n,)
    draws           which questions each sample consists of, (samples, n)
    """
    raise NotImplementedError
