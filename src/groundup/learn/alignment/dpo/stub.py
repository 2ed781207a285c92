"""5.6 DPO: preferences without a reward model

The lesson: groundup learn 5.6        Check it: groundup learn check 5.6
"""

import torch
from torch import Tensor


def answer_logprobs(token_logprobs: Tensor, mask: Tensor) -> Tensor:
    """log pi of each answer. Both: (answers, time); result: (answers,)."""
    raise NotImplementedError


def dpo_losses(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Each pair's loss and margin, from log-probabilities of whole answers. All: (pairs,)."""
    raise NotImplementedError
