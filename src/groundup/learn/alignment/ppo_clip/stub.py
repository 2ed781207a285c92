"""5.5 PPO's clip

The lesson: groundup learn 5.5        Check it: groundup learn check 5.5
"""

import torch
from torch import Tensor


def clipped_losses(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """max(-A ratio, -A clip(ratio, 1 - eps, 1 + eps)) of each token. All: (tokens,)."""
    raise NotImplementedError


def clipped_share(logprobs: Tensor, old_logprobs: Tensor, epsilon: float) -> float:
    """The share of tokens whose ratio is outside 1 - eps to 1 + eps."""
    raise NotImplementedError
