"""Which of several models nobody should take."""

import math

_Z = 1.959964


def dominates(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether `one` is nowhere worse than `other`, and somewhere better."""
    nowhere_worse = all(one[axis] >= other[axis] for axis in other)
    return nowhere_worse and any(one[axis] > other[axis] for axis in other)


def frontier(points: list[dict[str, float]]) -> list[int]:
    """The places of the points that none of the list dominates."""
    return [
        place
        for place, point in enumerate(points)
        if not any(dominates(other, point) for other in points)
    ]


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The ends of Wilson's 95 % interval for a share of successes in n trials."""
    center = (successes + _Z**2 / 2) / (n + _Z**2)
    radius = _Z / (n + _Z**2) * math.sqrt(successes * (n - successes) / n + _Z**2 / 4)
    return center - radius, center + radius
