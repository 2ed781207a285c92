"""What goes wrong with advantages."""

import numpy as np

REPLACES = {
    "score_everywhere": "token_rewards",
    "price_paid_out": "token_rewards",
    "last_price_lost": "token_rewards",
    "score_first": "token_rewards",
    "price_of_distance": "token_rewards",
    "price_of_gains": "token_rewards",
    "estimated_kl": "token_rewards",
    "value_after_the_end": "gae",
    "deltas_alone": "gae",
    "lambda_forgotten": "gae",
    "forwards": "gae",
    "returns_are_advantages": "gae",
    "rewards_to_go": "gae",
    "gamma_forgotten": "gae",
    "next_value_whole": "gae",
    "no_value_taken_away": "gae",
    "returns_by_minus": "gae",
    "whole_numbers": "gae",
    "price_at_the_end": "token_rewards",
    "price_forgotten": "token_rewards",
    "whitened": "gae",
    "returns_first": "gae",
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


def price_of_distance(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The price is of the distance, |logprobs - reference_logprobs|. It is of the difference: a
    token that became less likely gets something back, and only the sum is the divergence."""
    rewards = -beta * np.abs(logprobs - reference_logprobs)
    rewards[-1] += score
    return rewards


def price_of_gains(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """Only tokens that became likelier have a price here. A difference below 0 counts as well, with
    its sign."""
    rewards = -beta * np.maximum(logprobs - reference_logprobs, 0)
    rewards[-1] += score
    return rewards


def estimated_kl(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """That is GRPO's estimate, e^d - 1 - d. PPO's price is the plain difference of log-
    probabilities."""
    apart = reference_logprobs - logprobs
    rewards = -beta * (np.exp(apart) - 1 - apart)
    rewards[-1] += score
    return rewards


def next_value_whole(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The next token's value counts whole in delta. It is still to come, so γ shrinks it:
    r + γ V' - V."""
    deltas = rewards + np.append(values[1:], 0.0) - values
    return _swept(deltas + values, values, 0.0, gamma * lam, 0.0)


def no_value_taken_away(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The token's own value is not taken away: an advantage is what came *beyond* what the critic
    expected, r + γ V' - V."""
    following = gamma * np.append(values[1:], 0.0)
    advantages, _ = _swept(rewards + following, np.zeros(len(values)), 0.0, gamma * lam, 0.0)
    return advantages, advantages + values


def returns_by_minus(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The values are taken away from the advantages once more. Returns are advantages + values."""
    advantages, _ = _swept(rewards, values, gamma, gamma * lam, 0.0)
    return advantages, advantages - values


def whole_numbers(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The advantages are cut to whole numbers where the rewards are such: zeros_like(rewards) has
    their dtype. Take np.zeros(len(rewards))."""
    ahead = _swept(rewards, values, gamma, gamma * lam, 0.0)[0]
    advantages = np.zeros_like(rewards)
    advantages[:] = ahead
    return advantages, advantages + values


def price_at_the_end(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The price of the whole answer is paid at its end. Each token pays its own, where it is
    drawn."""
    rewards = np.zeros(len(logprobs))
    rewards[-1] = score - beta * (logprobs - reference_logprobs).sum()
    return rewards


def price_forgotten(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The price of leaving the reference is missing: -β (log π - log ref) at every token."""
    rewards = np.zeros(len(logprobs))
    rewards[-1] = score
    return rewards


def whitened(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The advantages were made to have mean 0 and deviation 1. PPO does that later, over a whole
    batch; returns need them as they are."""
    advantages, returns = _swept(rewards, values, gamma, gamma * lam, 0.0)
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8), returns


def returns_first(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The two are exchanged: advantages come first, then returns."""
    advantages, returns = _swept(rewards, values, gamma, gamma * lam, 0.0)
    return returns, advantages
