"""Bradley and Terry's model of comparisons: from who beat whom to one rating for each player.

    P(i beats j) = sigmoid(r_i - r_j),      r = argmax sum_ij wins_ij log P(i beats j)

The likelihood is concave, so Newton's method finds its maximum, of which there is one where every
player has, through others, both beaten and lost to every other (Hunter 2004, "MM algorithms for
generalized Bradley-Terry models", section 2). Only differences count: the first player's rating is
0. A tie is half a win for each. With a network for r this is what a reward model learns.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from groundup.maths.intervals import Interval

# Elo's scale: 400 points more are odds of ten to one.
ELO = 400 / np.log(10)
# The most by which one step changes a rating: far from the maximum Newton's own may overshoot.
_STRIDE = 1.0
# At a stride each, ratings get farther than any log of votes can tell apart.
_STEPS = 1000
# Holds the ratings of those in place who were never compared with the first, not even through
# others; far below what a single vote weighs.
_RIDGE = 1e-10


def bradley_terry(wins: Float[np.ndarray, "*logs n n"]) -> Float[np.ndarray, "*logs n"]:
    """The most likely ratings in nats, the first one 0, where `wins[i, j]` is how often i beat j.

    One who has never lost is infinitely better, and one who has never won infinitely worse; so
    with groups of players. Source: Bradley and Terry (1952), "Rank analysis of incomplete block
    designs: I", section 2.
    """
    above = _ranked(wins)
    # Who always beats others is no matter for how those compare.
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


def _ranked(wins: Float[np.ndarray, "*logs n n"]) -> Bool[np.ndarray, "*logs n n"]:
    """Whether player i beat player j, if only through others whom i beat and who beat j."""
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
    """Each player's rating in nats, with its bootstrap interval; those of the first are 0.

    `matches` holds the wins of each group of votes that belong together, those on one prompt: they
    are drawn whole. Samples in which nothing compares a player with the first say nothing of that
    player; where they are more than the tail, neither end is known, nor where all samples agree.
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
            # Between two samples nothing is interpolated: one of them may be infinite.
            low, high = np.quantile(known, [tail, 1 - tail], method="inverted_cdf")
            if player and low == high:
                low, high = -np.inf, np.inf
        found.append(Interval(float(estimate), float(low), float(high)))
    return found


def compared(wins: Float[np.ndarray, "*logs n n"]) -> Bool[np.ndarray, "*logs n"]:
    """Whether the votes order each player and the first, if only through others between them.

    Two who both lost to a third, and to nobody else, are in no order.
    """
    above = _ranked(wins)
    ordered: Bool[np.ndarray, "*logs n"] = above[..., :, 0] | above[..., 0, :]
    return ordered
