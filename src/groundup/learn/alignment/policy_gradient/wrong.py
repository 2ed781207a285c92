"""The commonest mistakes with the policy gradient."""

from torch import Tensor

REPLACES = {
    "mean_of_all": "advantages",
    "mean_of_the_batch": "advantages",
    "no_baseline": "advantages",
    "divided_by_n": "advantages",
    "rewards_fall": "policy_loss",
    "mean_for_sum": "policy_loss",
    "probabilities": "policy_loss",
    "baseline_trained": "policy_loss",
    "nothing_trained": "policy_loss",
    "divided_by_the_deviation": "advantages",
}


def mean_of_all(rewards: Tensor) -> Tensor:
    """The baseline includes the answer's own reward: that is the mean of all. Take the mean of the
    others."""
    return rewards - rewards.mean(-1, keepdim=True)


def mean_of_the_batch(rewards: Tensor) -> Tensor:
    """The baseline is the mean over all prompts. An easy prompt would push all its answers up:
    compare within a prompt."""
    return rewards - rewards.mean()


def no_baseline(rewards: Tensor) -> Tensor:
    """There is no baseline: if all rewards are positive, every answer is pushed up."""
    return rewards.clone()


def divided_by_n(rewards: Tensor) -> Tensor:
    """The sum of the others is divided by n. There are n - 1 others."""
    others = rewards.sum(-1, keepdim=True) - rewards
    return rewards - others / rewards.shape[-1]


def rewards_fall(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """The sign is flipped. A loss goes down, so it is *minus* A log pi that makes good answers more
    likely."""
    return (advantages.detach() * logprobs).sum()


def mean_for_sum(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """That is the mean. Return the sum: the trainer divides once, over the whole step."""
    return -(advantages.detach() * logprobs).mean()


def probabilities(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """This uses the probability, not its logarithm. A rare answer is sampled rarely already, so it
    would count too little."""
    return -(advantages.detach() * logprobs.exp()).sum()


def baseline_trained(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """A gradient flows through the advantages, so a network behind them would be trained to inflate
    them. Use advantages.detach()."""
    return -(advantages * logprobs).sum()


def nothing_trained(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """The log-probabilities are detached, so nothing is trained. Detach the advantages instead."""
    return -(advantages * logprobs.detach()).sum()


def divided_by_the_deviation(rewards: Tensor) -> Tensor:
    """The advantages are divided by the deviation of the group. That is GRPO, 5.7; here return only
    the difference from the others' mean."""
    apart = rewards - rewards.mean(-1, keepdim=True)
    return apart / (rewards.std(-1, keepdim=True) + 1e-8)
