"""What goes wrong with the clip."""

import torch
from torch import Tensor

REPLACES = {
    "smaller_of_two": "clipped_losses",
    "clip_alone": "clipped_losses",
    "never_clipped": "clipped_losses",
    "log_ratio_clipped": "clipped_losses",
    "ratio_upside_down": "clipped_losses",
    "rewards_fall": "clipped_losses",
    "mean_taken": "clipped_losses",
    "nothing_detached": "clipped_losses",
    "high_side_only": "clipped_share",
    "inside_counted": "clipped_share",
    "of_logs": "clipped_share",
}


def _ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    return (logprobs - old_logprobs).exp()


def smaller_of_two(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The smaller of the two losses is taken, so the clip never stops anything. In a loss, with
    the minus inside, it is the larger one."""
    ratio = _ratio(logprobs, old_logprobs)
    return torch.minimum(-advantages * ratio, -advantages * ratio.clamp(1 - epsilon, 1 + epsilon))


def clip_alone(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """Only the clipped ratio is used: where a token went the wrong way, nothing brings it back.
    Take the larger of the unclipped and the clipped loss."""
    return -advantages * _ratio(logprobs, old_logprobs).clamp(1 - epsilon, 1 + epsilon)


def never_clipped(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """Nothing is clipped: one sample would be followed without end."""
    return -advantages * _ratio(logprobs, old_logprobs)


def log_ratio_clipped(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The *difference of logarithms* is clipped to ±ε. It is the ratio that stays within 1 - ε
    and 1 + ε: exp first."""
    apart = logprobs - old_logprobs
    clipped = apart.clamp(-epsilon, epsilon).exp()
    return torch.maximum(-advantages * apart.exp(), -advantages * clipped)


def ratio_upside_down(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The ratio is upside down: it is new over old, exp(logprobs - old_logprobs)."""
    ratio = _ratio(old_logprobs, logprobs)
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - epsilon, 1 + epsilon))


def rewards_fall(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The minus is missing: this is what is made large. A loss is made small, so its sign is
    turned, and the minimum becomes a maximum."""
    ratio = _ratio(logprobs, old_logprobs)
    return torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - epsilon, 1 + epsilon))


def mean_taken(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The tokens are averaged. Return the loss of each: who divides by what is decided later."""
    ratio = _ratio(logprobs, old_logprobs)
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon)
    return torch.maximum(-advantages * ratio, -advantages * clipped).mean()


def nothing_detached(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """A gradient flows to old_logprobs or to the advantages, which are numbers from before. Detach
    both."""
    ratio = _ratio(logprobs, old_logprobs)
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - epsilon, 1 + epsilon))


def high_side_only(logprobs: Tensor, old_logprobs: Tensor, epsilon: float) -> float:
    """Only ratios above 1 + ε are counted. Those below 1 - ε are outside too."""
    return float((_ratio(logprobs, old_logprobs) > 1 + epsilon).float().mean())


def inside_counted(logprobs: Tensor, old_logprobs: Tensor, epsilon: float) -> float:
    """That is the share of tokens *within* the range. Asked for are those outside."""
    return float(((_ratio(logprobs, old_logprobs) - 1).abs() <= epsilon).float().mean())


def of_logs(logprobs: Tensor, old_logprobs: Tensor, epsilon: float) -> float:
    """The difference of logarithms is compared with ε. Compare the ratio's distance from 1."""
    return float(((logprobs - old_logprobs).abs() > epsilon).float().mean())
