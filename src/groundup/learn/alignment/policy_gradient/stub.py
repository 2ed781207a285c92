"""5.3 The policy gradient

The lesson: groundup learn 5.3        Check it: groundup learn check 5.3
"""

import torch
from torch import Tensor


def advantages(rewards: Tensor) -> Tensor:
    """Each reward minus the mean of the others in its row. Both: (prompts, answers)."""
    raise NotImplementedError


def policy_loss(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """The sum of -A log pi; no gradient flows through A. Both: (...); result: ()."""
    raise NotImplementedError
