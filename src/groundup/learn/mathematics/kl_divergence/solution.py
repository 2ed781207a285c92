"""1.7 KL divergence and its estimators, solved."""

from typing import Any

import numpy as np


def kl(q: np.ndarray, p: np.ndarray) -> float:
    seen = q > 0  # outcomes that never happen count 0, but 0 · log 0 would be NaN
    with np.errstate(divide="ignore"):
        return float((q[seen] * (np.log(q[seen]) - np.log(p[seen]))).sum())


def k1(log_ratio: Any) -> Any:
    return -log_ratio


def k3(log_ratio: Any) -> Any:
    # r - 1 averages to 0 and is large where ln r is: it removes most of the variance.
    return log_ratio.exp() - 1 - log_ratio
