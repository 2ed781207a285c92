"""The value of the best of n answers, and its distance from the model."""

import math

import numpy as np


def best_of_n(scores: np.ndarray, gold: np.ndarray, n: int) -> float:
    """The expected gold of the answer with the highest score among n of the pool. Arrays: (N,)."""
    # Equal scores are equally likely to be taken, so each gets the mean gold of the group.
    _, group = np.unique(scores, return_inverse=True)
    shared = np.bincount(group, gold) / np.bincount(group)
    in_order = shared[np.sort(group)]
    pool = len(scores)
    # The best has rank i if the other n - 1 come from the i - 1 below it.
    chances = [math.comb(place - 1, n - 1) / math.comb(pool, n) for place in range(1, pool + 1)]
    return float(np.dot(chances, in_order))


def kl_bound(n: int) -> float:
    """Upper bound on the KL divergence between best of n and the model, in nats."""
    return math.log(n) - (n - 1) / n
