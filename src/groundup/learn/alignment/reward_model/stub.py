"""5.2 A reward model, and how length leaks into it

The lesson: groundup learn 5.2        Check it: groundup learn check 5.2
"""

import numpy as np
import torch
from torch import Tensor


def pair_losses(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid(chosen - rejected) of each pair. All: (pairs,)."""
    raise NotImplementedError


def pair_weights(prompts: list[str]) -> list[float]:
    """The weight of each pair, so that the pairs of a prompt weigh 1 together."""
    raise NotImplementedError


def length_leak(rewards: np.ndarray, lengths: np.ndarray) -> float:
    """Spearman's rank correlation of rewards and lengths. Both: (answers,)."""
    raise NotImplementedError
