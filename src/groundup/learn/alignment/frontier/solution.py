"""Which of several models nobody should choose."""


def dominates(one: dict[str, float], other: dict[str, float]) -> bool:
    """Whether `one` is worse than `other` on no axis and better on at least one."""
    nowhere_worse = all(one[axis] >= other[axis] for axis in other)
    return nowhere_worse and any(one[axis] > other[axis] for axis in other)


def frontier(points: list[dict[str, float]]) -> list[int]:
    """The indices of the points that no point of the list dominates."""
    return [
        place
        for place, point in enumerate(points)
        if not any(dominates(other, point) for other in points)
    ]


def beyond_chance(changes: dict[str, tuple[float, float]]) -> bool:
    """Whether some change is surely a gain and none surely a loss; each is (low, high)."""
    is_better = any(low > 0 for low, _ in changes.values())
    return is_better and not any(high < 0 for _, high in changes.values())
