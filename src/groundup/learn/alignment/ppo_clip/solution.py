"""PPO's clipped loss."""

import torch
from torch import Tensor


def clipped_losses(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """max(-A ratio, -A clip(ratio, 1 - eps, 1 + eps)) of each token. All: (tokens,)."""
    old, numbers = old_logprobs.detach(), advantages.detach()
    ratio = (logprobs - old).exp()
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    # The worse of the two: flat only where the step has already gained.
    return torch.maximum(-numbers * ratio, -numbers * clipped)


def clipped_share(logprobs: Tensor, old_logprobs: Tensor, epsilon: float) -> float:
    """The share of tokens whose ratio is outside 1 - eps to 1 + eps."""
    ratio = (logprobs - old_logprobs).exp()
    return float(((ratio - 1).abs() > epsilon).float().mean())
