"""The policy gradient."""

from torch import Tensor


def advantages(rewards: Tensor) -> Tensor:
    """Each reward minus the mean of the others in its row. Both: (prompts, answers)."""
    others = rewards.sum(-1, keepdim=True) - rewards
    return rewards - others / (rewards.shape[-1] - 1)


def policy_loss(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """The sum of -A log pi; no gradient flows through A. Both: (...); result: ()."""
    return -(advantages.detach() * logprobs).sum()
