"""5.8 Over-optimization: best of n, and nats

The lesson: groundup learn 5.8        Check it: groundup learn check 5.8
"""

import math

import numpy as np


def best_of_n(scores: np.ndarray, gold: np.ndarray, n: int) -> float:
    """The expected gold of the answer with the highest score among n of the pool. Arrays: (N,)."""
    raise NotImplementedError


def kl_bound(n: int) -> float:
    """Upper bound on the KL divergence between best of n and the model, in nats."""
    raise NotImplementedError
