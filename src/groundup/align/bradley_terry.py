"""The Bradley-Terry model of comparisons: one rating per player from wins and losses.

    P(i beats j) = sigmoid(r_i - r_j),      r = argmax sum_ij wins_ij log P(i beats j)

The likelihood is concave, so Newton's method finds its maximum. The maximum is unique if every
player has, directly or through others, both beaten and lost to every other (Hunter 2004, "MM
algorithms for generalized Bradley-Terry models", section 2). Only differences count: the first
player's rating is 0. A tie is half a win for each. A reward model learns this with a network for r.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from groundup.maths.intervals import Interval

# Elo's scale: 400 more points are odds of ten to one.
ELO = 400 / np.log(10)
# The largest change of a rating in one step: far from the maximum a Newton step may overshoot.
_STRIDE = 1.0
# Enough steps for ratings farther apart than any log of votes can distinguish.
_STEPS = 1000
# Fixes the ratings of players who were never compared with the first, even indirectly; it weighs
# far less than a single vote.
_RIDGE = 1e-10


def bradley_terry(wins: Float[np.ndarray, "*logs n n"]) -> Float[np.ndarray, "*logs n"]:
    """The most likely ratings in nats, the first one 0; `wins[i, j]` is how often i beat j.

    A player who has never lost is infinitely better, and one who has never won infinitely worse;
    the same holds for groups of players. Source: Bradley and Terry (1952), "Rank analysis of
    incomplete block designs: I", section 2.
    """
    above = _reachable(wins)
    # Players who always beat others do not affect how those compare.
    wins = wins * (above & above.swapaxes(-1, -2))
    games = wins + wins.swapaxes(-1, -2)
    won = wins.sum(-1)
    ratings = np.zeros(wins.shape[:-1])
    ridge = _RIDGE * np.eye(wins.shape[-1] - 1)
    for _ in range(_STEPS):
        beats = 1 / (1 + np.exp(ratings[..., None, :] - ratings[..., :, None]))
        gradient = won - (games * beats).sum(-1)
        spread = games * beats * (1 - beats)
        hessian = np.eye(wins.shape[-1]) * spread.sum(-1)[..., None] - spread
        step = np.linalg.solve(hessian[..., 1:, 1:] + ridge, gradient[..., 1:, None])[..., 0]
        ratings[..., 1:] += np.clip(step, -_STRIDE, _STRIDE)
        if np.abs(step).max(initial=0) < 1e-10:
            break
    better, worse = above[..., :, 0], above[..., 0, :]
    found: Float[np.ndarray, "*logs n"] = np.where(
        better == worse, ratings, np.where(better, np.inf, -np.inf)
    )
    return found


def _reachable(wins: Float[np.ndarray, "*logs n n"]) -> Bool[np.ndarray, "*logs n n"]:
    """Whether player i beat player j, directly or through a chain of wins."""
    reached: Bool[np.ndarray, "*logs n n"] = (wins > 0) | np.eye(wins.shape[-1], dtype=bool)
    for _ in range(wins.shape[-1].bit_length()):
        reached = reached @ reached
    return reached


def rate(
    matches: Float[np.ndarray, "groups n n"],
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Interval]:
    """Each player's rating in nats with its bootstrap interval; those of the first are 0.

    `matches` holds the wins of each group of votes, such as those on one prompt; groups are
    resampled whole. A sample that does not compare a player with the first says nothing about that
    player. Both ends are infinite if more samples than one tail say nothing, or if all agree.
    """
    groups, n, _ = matches.shape
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), samples)
    wins = np.tensordot(drawn, matches, 1).reshape(samples, n, n)
    replicates, connected = bradley_terry(wins), compared(wins)
    tail = (1 - confidence) / 2
    found = []
    for player, estimate in enumerate(bradley_terry(matches.sum(0))):
        known = replicates[connected[:, player], player]
        low, high = -np.inf, np.inf
        if samples - len(known) <= tail * samples:
            # Quantiles are not interpolated: a sample may be infinite.
            low, high = np.quantile(known, [tail, 1 - tail], method="inverted_cdf")
            if player and low == high:
                low, high = -np.inf, np.inf
        found.append(Interval(float(estimate), float(low), float(high)))
    return found


def compared(wins: Float[np.ndarray, "*logs n n"]) -> Bool[np.ndarray, "*logs n"]:
    """Whether the votes order each player and the first, directly or through others.

    Two players who both lost to a third, and to nobody else, have no order.
    """
    above = _reachable(wins)
    ordered: Bool[np.ndarray, "*logs n"] = above[..., :, 0] | above[..., 0, :]
    return ordered
