"""Group-relative advantages, and a KL that is never negative."""

import numpy as np
from torch import Tensor


def group_advantages(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """How much better each answer is than its group. Both: (answers,), group after group."""
    groups = rewards.reshape(-1, group_size)
    apart = groups - groups.mean(1, keepdims=True)
    # The small number keeps a group of equal rewards at 0.
    return (apart / (groups.std(1, ddof=1, keepdims=True) + 1e-4)).ravel()


def kl(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """ref/pi - log(ref/pi) - 1 of each token. All: (tokens,)."""
    apart = reference_logprobs - logprobs
    return apart.exp() - apart - 1
