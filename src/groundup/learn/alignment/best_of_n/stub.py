"""What the best of n answers is worth, and how far it is from the model."""

import math

import numpy as np


def best_of_n(scores: np.ndarray, gold: np.ndarray, n: int) -> float:
    """The expected gold of the answer with the highest score among n of the pool. Arrays: (N,)."""
    raise NotImplementedError


def kl_bound(n: int) -> float:
    """Nats between best of n and the model at most."""
    raise NotImplementedError
