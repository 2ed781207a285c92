"""Advantages of tokens."""

import numpy as np


def token_rewards(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The KL penalty at each token, plus the score at the last one. Arrays: (n,)."""
    rewards = -beta * (logprobs - reference_logprobs)
    rewards[-1] += score
    return rewards


def gae(
    rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float
) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns of one answer's tokens; nothing follows the last one. All: (n,)."""
    advantages = np.zeros(len(rewards))
    next_value, ahead = 0.0, 0.0
    for t in reversed(range(len(rewards))):
        delta = rewards[t] + gamma * next_value - values[t]
        ahead = delta + gamma * lam * ahead
        advantages[t], next_value = ahead, values[t]
    return advantages, advantages + values
