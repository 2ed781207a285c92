"""What goes wrong on the frontier."""

import math

_Z = 1.959964

REPLACES = {
    "better_everywhere": "dominates",
    "better_somewhere": "dominates",
    "equal_dominates": "dominates",
    "better_sum": "dominates",
    "first_axis": "dominates",
    "best_sum": "frontier",
    "dominated_ones": "frontier",
    "points_not_places": "frontier",
    "best_on_an_axis": "frontier",
    "plain_interval": "wilson",
    "one_sided": "wilson",
    "radius_doubled": "wilson",
}

Point = dict[str, float]


def _dominates(one: Point, other: Point) -> bool:
    nowhere_worse = all(one[axis] >= other[axis] for axis in other)
    return nowhere_worse and any(one[axis] > other[axis] for axis in other)


def better_everywhere(one: Point, other: Point) -> bool:
    """It is asked to be better on *every* axis. Equal on one and better on another dominates
    too."""
    return all(one[axis] > other[axis] for axis in other)


def better_somewhere(one: Point, other: Point) -> bool:
    """Better on one axis is not enough: it must be worse on none."""
    return any(one[axis] > other[axis] for axis in other)


def equal_dominates(one: Point, other: Point) -> bool:
    """An equal point dominates here, and so each of two equal points, and each point itself.
    Somewhere it must be better."""
    return all(one[axis] >= other[axis] for axis in other)


def better_sum(one: Point, other: Point) -> bool:
    """The sums are compared, which trades one axis for another: that is a decision, and no
    dominance. Compare axis by axis."""
    return sum(one.values()) > sum(other.values())


def first_axis(one: Point, other: Point) -> bool:
    """The first axis decides, the next one only where it is equal. All axes count alike."""
    return list(one.values()) > list(other.values())


def best_sum(points: list[Point]) -> list[int]:
    """Only the point with the best sum is on it. The frontier has all points that nobody
    dominates, each the best for someone."""
    sums = [sum(point.values()) for point in points]
    return [i for i, one in enumerate(sums) if one == max(sums)]


def dominated_ones(points: list[Point]) -> list[int]:
    """Those are the points that *are* dominated. The frontier is the others."""
    return [i for i, p in enumerate(points) if any(_dominates(o, p) for o in points)]


def points_not_places(points: list[Point]) -> list[Point]:
    """These are the points themselves. Return their places in the list: 0, 1, …"""
    return [p for p in points if not any(_dominates(o, p) for o in points)]


def best_on_an_axis(points: list[Point]) -> list[int]:
    """Only the best on some axis are taken. A point in between, best on none, is on the frontier
    too if nobody dominates it."""
    best = {axis: max(point[axis] for point in points) for axis in points[0]} if points else {}
    return [i for i, p in enumerate(points) if any(p[axis] == best[axis] for axis in p)]


def plain_interval(successes: float, n: int) -> tuple[float, float]:
    """That is p ± z σ, which has no width at 0 and at n successes, and leaves 0 … 1. Use
    Wilson's center and radius."""
    p = successes / n
    radius = _Z * math.sqrt(p * (1 - p) / n)
    return p - radius, p + radius


def one_sided(successes: float, n: int) -> tuple[float, float]:
    """The interval is built around s / n. Wilson's has a center of its own, a little nearer to
    one half."""
    p = successes / n
    radius = _Z / (n + _Z**2) * math.sqrt(successes * (n - successes) / n + _Z**2 / 4)
    return p - radius, p + radius


def radius_doubled(successes: float, n: int) -> tuple[float, float]:
    """z is squared in front of the root. Only the terms with z²/2, z²/4 and n + z² have a
    square."""
    center = (successes + _Z**2 / 2) / (n + _Z**2)
    radius = _Z**2 / (n + _Z**2) * math.sqrt(successes * (n - successes) / n + _Z**2 / 4)
    return center - radius, center + radius
