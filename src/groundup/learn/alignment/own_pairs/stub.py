"""5.11 Your own preferences

The lesson: groundup learn 5.11        Check it: groundup learn check 5.11
"""

import math


def files() -> dict[str, str]:
    """Where your files are: "votes", "reward", "policy" and "blind" (see the lesson)."""
    raise NotImplementedError


def won(wins: int, ties: int, losses: int) -> tuple[float, float, float]:
    """The share of the votes, ties as halves, and the ends of its 95 % interval."""
    raise NotImplementedError


def verdict(low: float, high: float) -> str:
    """ "better", "worse", or "not significant"."""
    raise NotImplementedError
