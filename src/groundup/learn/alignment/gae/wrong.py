"""What goes wrong with advantages."""

import numpy as np

REPLACES = {
    "score_everywhere": "token_rewards",
    "price_paid_out": "token_rewards",
    "last_price_lost": "token_rewards",
    "score_first": "token_rewards",
    "value_after_the_end": "gae",
    "deltas_alone": "gae",
    "lambda_forgotten": "gae",
    "forwards": "gae",
    "returns_are_advantages": "gae",
    "rewards_to_go": "gae",
    "gamma_forgotten": "gae",
}

Both = tuple[np.ndarray, np.ndarray]


def score_everywhere(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The score is given at every token, so a longer answer gets more of it. It comes once, at
    the last token."""
    return score - beta * (logprobs - reference_logprobs)


def price_paid_out(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The sign of the price is turned: leaving the reference would be rewarded."""
    rewards = beta * (logprobs - reference_logprobs)
    rewards[-1] += score
    return rewards


def last_price_lost(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The score replaces the last token's price. Add it."""
    rewards = -beta * (logprobs - reference_logprobs)
    rewards[-1] = score
    return rewards


def score_first(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The score is given at the first token. It comes at the last one, when the answer is there."""
    rewards = -beta * (logprobs - reference_logprobs)
    rewards[0] += score
    return rewards


def _swept(rewards: np.ndarray, values: np.ndarray, gamma: float, decay: float, end: float) -> Both:
    advantages, following, ahead = np.zeros(len(rewards)), end, 0.0
    for t in reversed(range(len(rewards))):
        ahead = rewards[t] + gamma * following - values[t] + decay * ahead
        advantages[t], following = ahead, values[t]
    return advantages, advantages + values


def value_after_the_end(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The last token is followed by its own value. Nothing follows an answer's end: the value
    there is 0."""
    return _swept(rewards, values, gamma, gamma * lam, float(values[-1]))


def deltas_alone(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """These are the deltas alone, right for λ = 0. Add γλ times the advantage of the next token."""
    return _swept(rewards, values, gamma, 0.0, 0.0)


def lambda_forgotten(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """λ is not used: what is carried from the next token shrinks by γλ, not by γ."""
    return _swept(rewards, values, gamma, gamma, 0.0)


def gamma_forgotten(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """What is carried from the next token shrinks by γλ, and here by λ alone."""
    return _swept(rewards, values, gamma, lam, 0.0)


def forwards(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The tokens are gone through from front to end, so merit flows to what comes *later*. Go
    backwards."""
    advantages, ahead = np.zeros(len(rewards)), 0.0
    for t in range(len(rewards)):
        following = values[t + 1] if t + 1 < len(values) else 0.0
        ahead = rewards[t] + gamma * following - values[t] + gamma * lam * ahead
        advantages[t] = ahead
    return advantages, advantages + values


def returns_are_advantages(
    rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float
) -> Both:
    """The returns are the advantages once more. They are what the critic should have said:
    advantages + values."""
    advantages, _ = _swept(rewards, values, gamma, gamma * lam, 0.0)
    return advantages, advantages


def rewards_to_go(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The returns are the rewards still to come. That is right for λ = 1 alone: what the critic
    should have said is advantages + values."""
    advantages, _ = _swept(rewards, values, gamma, gamma * lam, 0.0)
    returns, ahead = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        ahead = rewards[t] + gamma * ahead
        returns[t] = ahead
    return advantages, returns
