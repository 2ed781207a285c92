"""5.7 GRPO: a group instead of a critic

The lesson: groundup learn 5.7        Check it: groundup learn check 5.7
"""

import numpy as np
import torch
from torch import Tensor


def group_advantages(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """How much better each answer is than its group. Both: (answers,), group after group."""
    raise NotImplementedError


def kl(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """ref/pi - log(ref/pi) - 1 of each token. All: (tokens,)."""
    raise NotImplementedError
