"""1.7 KL divergence and its estimators.

The lesson: groundup learn 1.7        Check it: groundup learn check 1.7
"""

from typing import Any

import numpy as np


def kl(q: np.ndarray, p: np.ndarray) -> float:
    """Return KL(q || p) in nats, for probabilities over the same k outcomes."""
    raise NotImplementedError


def k1(log_ratio: Any) -> Any:
    """Return the estimate -ln r of each sample, for log_ratio = ln p(x) - ln q(x), x from q."""
    raise NotImplementedError


def k3(log_ratio: Any) -> Any:
    """Return the estimate (r - 1) - ln r of each sample."""
    raise NotImplementedError
