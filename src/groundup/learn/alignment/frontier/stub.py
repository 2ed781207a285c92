"""Which of several models nobody should take."""

import math


def dominates(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better."""
    raise NotImplementedError


def frontier(points: list[dict[str, float]]) -> list[int]:
    """The places of the points that none of the list dominates."""
    raise NotImplementedError


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The ends of Wilson's 95 % interval for a share of successes in n trials."""
    raise NotImplementedError
