"""The commonest mistakes with the clip."""

import torch
from torch import Tensor

REPLACES = {
    "smaller_of_two": "clipped_losses",
    "clip_alone": "clipped_losses",
    "never_clipped": "clipped_losses",
    "log_ratio_clipped": "clipped_losses",
    "ratio_upside_down": "clipped_losses",
    "quotient_of_logs": "clipped_losses",
    "difference_of_logs": "clipped_losses",
    "high_side_clipped": "clipped_losses",
    "own_range": "clipped_losses",
    "rewards_fall": "clipped_losses",
    "mean_taken": "clipped_losses",
    "nothing_detached": "clipped_losses",
    "old_not_detached": "clipped_losses",
    "advantages_not_detached": "clipped_losses",
    "high_side_only": "clipped_share",
    "inside_counted": "clipped_share",
    "of_logs": "clipped_share",
    "lower_end_upside_down": "clipped_share",
    "dropped_outside": "clipped_losses",
    "advantage_of_the_clip_forgotten": "clipped_losses",
    "ratio_turned": "clipped_share",
    "counted": "clipped_share",
}


def _ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    return (logprobs - old_logprobs.detach()).exp()


def _larger(advantages: Tensor, ratio: Tensor, clipped: Tensor) -> Tensor:
    numbers = advantages.detach()
    return torch.maximum(-numbers * ratio, -numbers * clipped)


def smaller_of_two(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The smaller of the two losses is taken, so the clip never stops anything. In a loss, with the
    minus inside, it is the larger one. (With the minus outside, it is the smaller one.)"""
    ratio = _ratio(logprobs, old_logprobs)
    return -_larger(-advantages, ratio, ratio.clamp(1 - epsilon, 1 + epsilon))


def clip_alone(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """Only the clipped ratio is used: if a token went the wrong way, nothing brings it back. Take
    the larger of the unclipped and the clipped loss."""
    return -advantages.detach() * _ratio(logprobs, old_logprobs).clamp(1 - epsilon, 1 + epsilon)


def never_clipped(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """Nothing is clipped: the policy could follow a single sample without limit."""
    return -advantages.detach() * _ratio(logprobs, old_logprobs)


def log_ratio_clipped(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The *difference of logarithms* is clipped to ±ε. Clip the ratio to 1 - ε … 1 + ε: take exp
    first."""
    apart = logprobs - old_logprobs.detach()
    return _larger(advantages, apart.exp(), apart.clamp(-epsilon, epsilon).exp())


def ratio_upside_down(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The ratio is inverted: it is new over old, exp(logprobs - old_logprobs)."""
    ratio = (old_logprobs.detach() - logprobs).exp()
    return _larger(advantages, ratio, ratio.clamp(1 - epsilon, 1 + epsilon))


def rewards_fall(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The minus is missing: this objective is to be maximized. A loss is minimized, so its sign is
    flipped, and the minimum becomes a maximum."""
    ratio = _ratio(logprobs, old_logprobs)
    return -_larger(advantages, ratio, ratio.clamp(1 - epsilon, 1 + epsilon))


def mean_taken(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The tokens are averaged. Return the loss of each token: the trainer divides later."""
    ratio = _ratio(logprobs, old_logprobs)
    return _larger(advantages, ratio, ratio.clamp(1 - epsilon, 1 + epsilon)).mean()


def nothing_detached(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """A gradient flows to old_logprobs or to the advantages, which are constants from before the
    step. Detach both."""
    ratio = (logprobs - old_logprobs).exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - epsilon, 1 + epsilon))


def high_side_only(logprobs: Tensor, old_logprobs: Tensor, epsilon: float) -> float:
    """Only ratios above 1 + ε are counted. Those below 1 - ε are outside too."""
    return float((_ratio(logprobs, old_logprobs) > 1 + epsilon).float().mean())


def inside_counted(logprobs: Tensor, old_logprobs: Tensor, epsilon: float) -> float:
    """That is the share of tokens *within* the range. Return the share outside."""
    return float(((_ratio(logprobs, old_logprobs) - 1).abs() <= epsilon).float().mean())


def of_logs(logprobs: Tensor, old_logprobs: Tensor, epsilon: float) -> float:
    """The difference of logarithms is compared with ε. Compare the ratio's distance from 1."""
    return float(((logprobs - old_logprobs).abs() > epsilon).float().mean())


def quotient_of_logs(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """Log-probabilities are divided by each other. The ratio of probabilities is the exp of their
    difference."""
    ratio = logprobs / old_logprobs.detach()
    return _larger(advantages, ratio, ratio.clamp(1 - epsilon, 1 + epsilon))


def difference_of_logs(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The exp is missing: a difference of log-probabilities is the *logarithm* of the ratio."""
    ratio = logprobs - old_logprobs.detach()
    return _larger(advantages, ratio, ratio.clamp(1 - epsilon, 1 + epsilon))


def high_side_clipped(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The ratio is clipped only at 1 + ε. A token with a negative advantage has gained when its
    ratio *fell*: take the larger of the unclipped loss and the loss with the ratio clipped on both
    sides."""
    return -advantages.detach() * _ratio(logprobs, old_logprobs).clamp(max=1 + epsilon)


def own_range(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float) -> Tensor:
    """The ratio is always clipped to 0.8 and 1.2. Use 1 - ε and 1 + ε."""
    ratio = _ratio(logprobs, old_logprobs)
    return _larger(advantages, ratio, ratio.clamp(0.8, 1.2))


def lower_end_upside_down(logprobs: Tensor, old_logprobs: Tensor, epsilon: float) -> float:
    """The lower end is taken as 1 / (1 + ε). It is 1 - ε."""
    ratio = _ratio(logprobs, old_logprobs)
    return float(((ratio < 1 / (1 + epsilon)) | (ratio > 1 + epsilon)).float().mean())


def old_not_detached(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """A gradient flows to old_logprobs, which are constants from before the step. Detach them."""
    ratio = (logprobs - old_logprobs).exp()
    return _larger(advantages, ratio, ratio.clamp(1 - epsilon, 1 + epsilon))


def advantages_not_detached(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """A gradient flows to the advantages, which are constants: their source, such as a critic, must
    not learn from this loss. Detach them."""
    ratio = _ratio(logprobs, old_logprobs)
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - epsilon, 1 + epsilon))


def dropped_outside(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """Tokens whose ratio is outside have no loss here, on either side. The clip only stops a gain
    from growing; a loss counts in full: take the larger of the two losses."""
    ratio = _ratio(logprobs, old_logprobs)
    return torch.where((ratio - 1).abs() > epsilon, 0.0, -advantages.detach() * ratio)


def advantage_of_the_clip_forgotten(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, epsilon: float
) -> Tensor:
    """The clipped ratio is used without the advantage. Multiply it by the advantage as well."""
    ratio, numbers = _ratio(logprobs, old_logprobs), advantages.detach()
    return torch.maximum(-numbers * ratio, -ratio.clamp(1 - epsilon, 1 + epsilon))


def ratio_turned(logprobs: Tensor, old_logprobs: Tensor, epsilon: float) -> float:
    """The ratio is inverted: π / π_old is exp(log π - log π_old)."""
    ratio = (old_logprobs - logprobs).exp()
    return float(((ratio - 1).abs() > epsilon).float().mean())


def counted(logprobs: Tensor, old_logprobs: Tensor, epsilon: float) -> float:
    """That is the number of tokens outside. Return their share: divide by the number of all
    tokens."""
    ratio = (logprobs - old_logprobs).exp()
    return float(((ratio - 1).abs() > epsilon).sum())
