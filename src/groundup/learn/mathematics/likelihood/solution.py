"""1.6 Likelihood and cross-entropy, solved."""

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    # The largest becomes 0: no exp overflows, and the sum is never 0.
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    own = log_softmax(logits)[np.arange(len(targets)), targets]
    return float(-own.mean())
