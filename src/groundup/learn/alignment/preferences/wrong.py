"""The commonest mistakes with ratings."""

import numpy as np

REPLACES = {
    "share_of_ratings": "beats",
    "loser_wins": "beats",
    "overflows": "beats",
    "base_ten": "beats",
    "share_won": "ratings",
    "log_odds_won": "ratings",
    "first_not_zero": "ratings",
    "one_step": "ratings",
    "a_hundred_steps": "ratings",
    "downhill": "ratings",
}


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(np.asarray(x, float) / 2))


def _climbed(wins: np.ndarray, steps: int, sign: float = 1.0) -> np.ndarray:
    games, found = wins + wins.T, np.zeros(len(wins))
    rate = sign * 2 / games.sum(1).max()
    for _ in range(steps):
        chances = _sigmoid(found[:, None] - found[None, :])
        before = found
        found = np.clip(found + rate * (wins.sum(1) - (games * chances).sum(1)), -50, 50)
        if np.abs(found - before).max() < 1e-9:
            break
    return found


def share_of_ratings(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """That is the share of the ratings, one / (one + other), which fails at 0 and below. The
    probability is the sigmoid of the difference."""
    return np.asarray(one, float) / (np.asarray(one, float) + other)


def loser_wins(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The difference is reversed: the probability of `one` grows with *its* rating, one - other."""
    return _sigmoid(np.asarray(other, float) - one)


def overflows(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """exp of a large difference overflows: it is inf, and inf / inf is NaN. Use e^-|x|, or clip
    the difference."""
    grown = np.exp(np.asarray(one, float) - other)
    return grown / (1 + grown)


def base_ten(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """That is the base of ten of Elo ratings. Ratings here are in nats: e^-(one - other)."""
    return _sigmoid((np.asarray(one, float) - other) * np.log(10))


def share_won(wins: np.ndarray) -> np.ndarray:
    """That is the share of games won, minus the first player's. It ignores the opponents: climb the
    likelihood instead."""
    share = wins.sum(1) / (wins + wins.T).sum(1)
    return share - share[0]


def log_odds_won(wins: np.ndarray) -> np.ndarray:
    """These are log-odds of games won against lost, right only for two players: a player that beat
    strong opponents deserves more. Climb the likelihood instead."""
    found = np.log(wins.sum(1) / wins.sum(0))
    return found - found[0]


def first_not_zero(wins: np.ndarray) -> np.ndarray:
    """The first rating is not 0. Only differences count, so subtract the first one from all."""
    return _climbed(wins, 5000)


def one_step(wins: np.ndarray) -> np.ndarray:
    """One step is not the top of the hill. Repeat until a step hardly moves anything."""
    found = _climbed(wins, 1)
    return found - found[0]


def a_hundred_steps(wins: np.ndarray) -> np.ndarray:
    """A hundred steps are too few if players are far apart, where the slope is small. Repeat until
    a step hardly moves anything."""
    found = _climbed(wins, 100)
    return found - found[0]


def downhill(wins: np.ndarray) -> np.ndarray:
    """The steps lead downhill: a player that won more than expected must be raised (add won -
    expected)."""
    found = _climbed(wins, 60, -1.0)
    return found - found[0]
