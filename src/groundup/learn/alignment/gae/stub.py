"""5.4 GAE: which token earned the reward?

The lesson: groundup learn 5.4        Check it: groundup learn check 5.4
"""

import numpy as np


def token_rewards(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The KL penalty at each token, plus the score at the last one. Arrays: (n,)."""
    raise NotImplementedError


def gae(
    rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float
) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns of one answer's tokens; nothing follows the last one. All: (n,)."""
    raise NotImplementedError
