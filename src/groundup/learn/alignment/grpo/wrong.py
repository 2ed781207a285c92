"""The commonest mistakes in GRPO."""

import numpy as np
from torch import Tensor

REPLACES = {
    "whole_batch": "group_advantages",
    "columns_for_rows": "group_advantages",
    "deviation_by_n": "group_advantages",
    "not_divided": "group_advantages",
    "equal_rewards_divided": "group_advantages",
    "smaller_number_added": "group_advantages",
    "plain_difference": "kl",
    "upside_down": "kl",
    "one_forgotten": "kl",
    "absolute": "kl",
    "variance_for_deviation": "group_advantages",
    "others_alone": "group_advantages",
    "deviation_of_the_batch": "group_advantages",
    "half_square": "kl",
}


def whole_batch(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """All rewards are one group: an easy prompt would lift all its answers. Compare within a
    prompt."""
    return (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)


def columns_for_rows(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """The groups are taken across prompts: answers to different prompts are compared. With G = 4
    the first four rewards are one group, a row of reshape(-1, G)."""
    groups = rewards.reshape(group_size, -1).T
    apart = groups - groups.mean(1, keepdims=True)
    return (apart / (groups.std(1, ddof=1, keepdims=True) + 1e-4)).T.ravel()


def deviation_by_n(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """The deviation uses the divisor n. Use that of a sample, n - 1: ddof=1."""
    groups = rewards.reshape(-1, group_size)
    apart = groups - groups.mean(1, keepdims=True)
    return (apart / (groups.std(1, keepdims=True) + 1e-4)).ravel()


def not_divided(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """The deviation is left out. That is Dr. GRPO; here each group is divided by its own."""
    groups = rewards.reshape(-1, group_size)
    return (groups - groups.mean(1, keepdims=True)).ravel()


def equal_rewards_divided(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """A group of equal rewards is divided by 0. Add 0.0001 to the deviation."""
    groups = rewards.reshape(-1, group_size)
    apart = groups - groups.mean(1, keepdims=True)
    with np.errstate(all="ignore"):
        return (apart / groups.std(1, ddof=1, keepdims=True)).ravel()


def smaller_number_added(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """A much smaller number than 0.0001 is added to the deviation."""
    groups = rewards.reshape(-1, group_size)
    apart = groups - groups.mean(1, keepdims=True)
    return (apart / (groups.std(1, ddof=1, keepdims=True) + 1e-8)).ravel()


def plain_difference(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """That is the plain difference of logarithms, right on average but often negative. Use ref/π -
    log(ref/π) - 1."""
    return logprobs - reference_logprobs


def upside_down(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The ratio is inverted: it is ref/π, since the tokens were sampled from π."""
    apart = logprobs - reference_logprobs
    return apart.exp() - apart - 1


def one_forgotten(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The 1 is not subtracted: where both agree, the result must be 0."""
    apart = reference_logprobs - logprobs
    return apart.exp() - apart


def absolute(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The absolute difference is never negative, but it is wrong on average. Use ref/π -
    log(ref/π) - 1."""
    return (logprobs - reference_logprobs).abs()


def variance_for_deviation(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """The group is divided by its variance. The deviation is the root of that: std instead of
    var."""
    groups = rewards.reshape(-1, group_size)
    apart = groups - groups.mean(1, keepdims=True)
    return (apart / (groups.var(1, ddof=1, keepdims=True) + 1e-4)).ravel()


def others_alone(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """Each reward is compared with the mean of the *others*. That is RLOO, 5.3; here it is the mean
    of the whole group."""
    groups = rewards.reshape(-1, group_size)
    others = (groups.sum(1, keepdims=True) - groups) / (group_size - 1)
    return ((groups - others) / (groups.std(1, ddof=1, keepdims=True) + 1e-4)).ravel()


def deviation_of_the_batch(rewards: np.ndarray, group_size: int) -> np.ndarray:
    """Each group is divided by the deviation of all rewards. Each group has its own: axis 1."""
    groups = rewards.reshape(-1, group_size)
    apart = groups - groups.mean(1, keepdims=True)
    return (apart / (rewards.std(ddof=1) + 1e-4)).ravel()


def half_square(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """That is k2, half the square of the difference. Return k3: exp(d) - d - 1."""
    return (logprobs - reference_logprobs).square() / 2
