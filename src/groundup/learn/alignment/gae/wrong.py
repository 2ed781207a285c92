"""The commonest mistakes with advantages."""

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
    """The score is added at every token, so a longer answer gets more of it. Add it once, at the
    last token."""
    return score - beta * (logprobs - reference_logprobs)


def price_paid_out(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The sign of the penalty is flipped: leaving the reference would be rewarded."""
    rewards = beta * (logprobs - reference_logprobs)
    rewards[-1] += score
    return rewards


def last_price_lost(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The score replaces the last token's penalty. Add it."""
    rewards = -beta * (logprobs - reference_logprobs)
    rewards[-1] = score
    return rewards


def score_first(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The score is added at the first token. Add it at the last one, when the answer is
    complete."""
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
    """λ is not used: the advantage carried from the next token shrinks by γλ, not by γ."""
    return _swept(rewards, values, gamma, gamma, 0.0)


def gamma_forgotten(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """γ is not used: the advantage carried from the next token shrinks by γλ, not by λ alone."""
    return _swept(rewards, values, gamma, lam, 0.0)


def forwards(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The loop goes from the first token to the last, so credit flows to *later* tokens. Go
    backward."""
    advantages, ahead = np.zeros(len(rewards)), 0.0
    for t in range(len(rewards)):
        following = values[t + 1] if t + 1 < len(values) else 0.0
        ahead = rewards[t] + gamma * following - values[t] + gamma * lam * ahead
        advantages[t] = ahead
    return advantages, advantages + values


def returns_are_advantages(
    rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float
) -> Both:
    """The returns equal the advantages. Returns are the critic's targets: advantages + values."""
    advantages, _ = _swept(rewards, values, gamma, gamma * lam, 0.0)
    return advantages, advantages


def rewards_to_go(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The returns are the sums of the rewards still to come, which is right only for λ = 1. Returns
    are advantages + values."""
    advantages, _ = _swept(rewards, values, gamma, gamma * lam, 0.0)
    returns, ahead = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        ahead = rewards[t] + gamma * ahead
        returns[t] = ahead
    return advantages, returns


def price_of_distance(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The penalty uses the absolute value, |logprobs - reference_logprobs|. Use the signed
    difference: a token that became less likely gets something back, and only the sum is the
    divergence."""
    rewards = -beta * np.abs(logprobs - reference_logprobs)
    rewards[-1] += score
    return rewards


def price_of_gains(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """Only tokens that became more likely have a penalty here. A difference below 0 counts as well,
    with its sign."""
    rewards = -beta * np.maximum(logprobs - reference_logprobs, 0)
    rewards[-1] += score
    return rewards


def estimated_kl(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """That is GRPO's estimate, e^d - 1 - d. PPO's penalty is the plain difference of
    log-probabilities."""
    apart = reference_logprobs - logprobs
    rewards = -beta * (np.exp(apart) - 1 - apart)
    rewards[-1] += score
    return rewards


def next_value_whole(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The next token's value is not discounted in delta. Multiply it by γ: r + γ V' - V."""
    deltas = rewards + np.append(values[1:], 0.0) - values
    return _swept(deltas + values, values, 0.0, gamma * lam, 0.0)


def no_value_taken_away(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The token's own value is not subtracted: an advantage is what came *beyond* the critic's
    expectation, r + γ V' - V."""
    following = gamma * np.append(values[1:], 0.0)
    advantages, _ = _swept(rewards + following, np.zeros(len(values)), 0.0, gamma * lam, 0.0)
    return advantages, advantages + values


def returns_by_minus(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The values are subtracted from the advantages. Returns are advantages + values."""
    advantages, _ = _swept(rewards, values, gamma, gamma * lam, 0.0)
    return advantages, advantages - values


def whole_numbers(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The advantages are truncated to integers if the rewards are integers: zeros_like(rewards) has
    their dtype. Use np.zeros(len(rewards))."""
    ahead = _swept(rewards, values, gamma, gamma * lam, 0.0)[0]
    advantages = np.zeros_like(rewards)
    advantages[:] = ahead
    return advantages, advantages + values


def price_at_the_end(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The penalty of the whole answer is added at its end. Each token gets its own penalty, at its
    own position."""
    rewards = np.zeros(len(logprobs))
    rewards[-1] = score - beta * (logprobs - reference_logprobs).sum()
    return rewards


def price_forgotten(
    score: float, logprobs: np.ndarray, reference_logprobs: np.ndarray, beta: float
) -> np.ndarray:
    """The penalty for leaving the reference is missing: -β (log π - log ref) at every token."""
    rewards = np.zeros(len(logprobs))
    rewards[-1] = score
    return rewards


def whitened(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The advantages were whitened to mean 0 and deviation 1. PPO does that later, over a whole
    batch; the returns need the raw advantages."""
    advantages, returns = _swept(rewards, values, gamma, gamma * lam, 0.0)
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8), returns


def returns_first(rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float) -> Both:
    """The two are exchanged: advantages come first, then returns."""
    advantages, returns = _swept(rewards, values, gamma, gamma * lam, 0.0)
    return returns, advantages
